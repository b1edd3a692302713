-- Every change of presence in Redis is one call of this script, so it is atomic; each operation may be repeated.
-- It touches keys that it does not declare, in many hash slots: Redis Cluster is refused at the start.
--
-- ARGV: operation, gateway, incarnation, resume window in ms, then what the operation says. Whoever has lost the lease
-- changes nothing ("FENCED"). A session's owner is a connection; whoever changes it counts `version` up, and what is
-- written under an older version is refused ("LOST").

local op, me, life, window = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local call = redis.call
local LEASE_MS = 15000
local TAKEOVER_MS = 1000
local LEASES = 'gateway:leases'

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lease(gateway) return call('GET', 'gateway:' .. gateway) end

local function tell(gateway, ...)
  call('PUBLISH', 'gateway:' .. gateway .. ':inbox', table.concat({...}, ' '))
end

local function some(text) return text and text ~= '' end

-- From each player of a hub a way leads to it, which lives no shorter than the hub: a kick names nothing but the user.
local function keep_ways(room, ms, user)
  local info = 'room:' .. room .. ':info'
  if call('PTTL', 'user:' .. user .. ':hub') >= ms then return end
  local left = math.floor(math.max(ms, call('PTTL', info)) + window / 4)
  for _, field in ipairs(call('HKEYS', info)) do
    local player = field:match('^player:(.*)$')
    if player then call('SET', 'user:' .. player .. ':hub', room, 'PX', left) end
  end
end

-- Hubs end by themselves: their keys live a while longer whenever a player comes, stays or goes.
local function touch_hub(room, ms, user, seen)
  local info = 'room:' .. room .. ':info'
  local code, player = unpack(call('HMGET', info, 'code', 'player:' .. user))
  if not code or not player then return end
  call('PEXPIRE', info, math.floor(ms), 'GT')
  call('PEXPIRE', 'room:code:' .. code, math.floor(ms), 'GT')
  keep_ways(room, ms, user)
  if seen then
    call('HSET', info, 'player:' .. user, (player:gsub('^(%d+) %d+', '%1 ' .. string.format('%.0f', seen), 1)))
  end
end

-- The user, if it is a hub's player, has no place any more; the rooms service counts it until another one gets it.
local function leave_hub(user)
  local way = 'user:' .. user .. ':hub'
  local room = call('GET', way)
  if not room then return end
  call('DEL', way)
  local info = 'room:' .. room .. ':info'
  if call('HDEL', info, 'player:' .. user) == 1 then call('HSET', info, 'vacated:' .. user, '') end
end

-- Rooms are written as `s/<room>` (a backend let the session in) or `o/<room>` (open), separated by spaces.
local function each_room(rooms, act)
  for kind, room in (rooms or ''):gmatch('(%a)/(%S+)') do act(room, kind) end
end

local function touch_hubs(rooms, ms, user)
  local seen = now_ms()
  each_room(rooms, function(room) touch_hub(room, ms, user, seen) end)
end

local function leave_room(room, conn, user)
  local sockets = 'room:' .. room .. ':sockets'
  call('SREM', sockets, conn)
  for _, other in ipairs(call('SMEMBERS', 'user:' .. user .. ':sockets')) do
    if other ~= conn and call('SISMEMBER', sockets, other) == 1 then return end
  end
  call('SREM', 'room:' .. room .. ':users', user)
  if call('EXISTS', sockets) == 0 then
    local info = 'room:' .. room .. ':info'
    if call('HGET', info, 'admission') ~= 'token' then call('PEXPIRE', info, window) end
  end
end

local function enter_room(room, kind, conn, user)
  call('SADD', 'room:' .. room .. ':sockets', conn)
  call('SADD', 'room:' .. room .. ':users', user)
  local info = 'room:' .. room .. ':info'
  call('HSETNX', info, 'admission', kind == 's' and 'service' or 'open')
  if call('HGET', info, 'admission') == 'token' then touch_hub(room, window, user) else call('PERSIST', info) end
end

local function drop_socket(conn, gateway)
  local key = 'socket:' .. conn
  local user, owner, rooms = unpack(call('HMGET', key, 'user_id', 'gateway_id', 'rooms'))
  if user then
    each_room(rooms, function(room) leave_room(room, conn, user) end)
    call('SREM', 'user:' .. user .. ':sockets', conn)
    if call('EXISTS', 'user:' .. user .. ':sockets') == 0 then call('SREM', 'presence:online', user) end
    call('DEL', key)
    call('SREM', 'gateway:' .. owner .. ':sockets', conn)
  end
  call('SREM', 'gateway:' .. (gateway or me) .. ':sockets', conn)
end

local function put_socket(conn, session, user, username, connected_at, rooms)
  local key = 'socket:' .. conn
  local before = call('HGET', key, 'rooms')
  call('HSET', key, 'user_id', user, 'username', username, 'connected_at', connected_at, 'gateway_id', me,
    'session_id', session, 'incarnation', life, 'rooms', rooms)
  call('SADD', 'user:' .. user .. ':sockets', conn)
  call('SADD', 'presence:online', user)
  call('SADD', 'gateway:' .. me .. ':sockets', conn)
  local inside = {}
  each_room(rooms, function(room, kind)
    inside[room] = true
    enter_room(room, kind, conn, user)
  end)
  each_room(before, function(room) if not inside[room] then leave_room(room, conn, user) end end)
end

-- A record is `session:{session id}`; `session:{hash of the resume token}` leads to it and lives as long.
local RECORD = {'session_id', 'token', 'version', 'user_id', 'username', 'roles', 'expires_at', 'scopes', 'acted',
  'last_close', 'rooms', 'kicked'}

-- `user:{id}:kicked` names the last event that kicked the user, `kicked` of a session the last one before it was opened.
local function is_kicked(session)
  local user, before = unpack(call('HMGET', 'session:' .. session, 'user_id', 'kicked'))
  local last = user and call('GET', 'user:' .. user .. ':kicked')
  return last and last ~= (before or '')
end

local function expire(session, token, ms)
  call('PEXPIRE', 'session:' .. session, ms)
  call('PEXPIRE', 'session:' .. token, ms)
end

local function record(session) return call('HMGET', 'session:' .. session, unpack(RECORD)) end

-- From `at` on ARGV has the record's fields, in order.
local function write(at, conn, ms)
  local session, token = ARGV[at], ARGV[at + 1]
  local fields = {}
  for index, name in ipairs(RECORD) do
    fields[#fields + 1] = name
    fields[#fields + 1] = ARGV[at + index - 1]
  end
  call('HSET', 'session:' .. session, 'gateway_id', me, 'incarnation', life, 'connection_id', conn, unpack(fields))
  call('HSET', 'session:' .. token, 'session_id', session)
  expire(session, token, ms)
end

local function end_session(session)
  local token, conn, waiter, waits =
    unpack(call('HMGET', 'session:' .. session, 'token', 'connection_id', 'next_gateway', 'next_connection'))
  if token then call('DEL', 'session:' .. token) end
  if some(conn) then drop_socket(conn) end
  if some(waiter) and waiter ~= me then tell(waiter, 'ended', session, waits) end
  call('DEL', 'session:' .. session)
end

local function take(session, conn, connected_at)
  local key = 'session:' .. session
  local gateway, former, version, token, user, username, rooms = unpack(call('HMGET', key, 'gateway_id',
    'connection_id', 'version', 'token', 'user_id', 'username', 'rooms'))
  local own = gateway == me
  if former == conn and own then
    version = tonumber(version)
  else
    version = tonumber(version) + 1
  end
  call('HSET', key, 'gateway_id', me, 'incarnation', life, 'connection_id', conn, 'version', version)
  call('HDEL', key, 'next_gateway', 'next_connection', 'next_life', 'next_at')
  expire(session, token, window)
  if own and some(former) and former ~= conn then drop_socket(former) end
  if not own then tell(gateway, 'taken', session, version) end
  put_socket(conn, session, user, username, connected_at, rooms)
  return {'GIVEN', record(session)}
end

-- `user`, if it is not empty, is whose the session must be.
local function claim(token, conn, connected_at, user)
  local session = call('HGET', 'session:' .. token, 'session_id')
  if not session then return {'EXPIRED'} end
  local key = 'session:' .. session
  local version, gateway, owner, owner_life, waiter, waits, since = unpack(call('HMGET', key, 'version', 'gateway_id',
    'connection_id', 'incarnation', 'next_gateway', 'next_connection', 'next_at'))
  if not version then
    call('DEL', 'session:' .. token)
    return {'EXPIRED'}
  end
  if is_kicked(session) then
    end_session(session)
    return {'EXPIRED'}
  end
  if some(user) and call('HGET', key, 'user_id') ~= user then return {'FOREIGN'} end
  if not some(owner) or owner == conn or lease(gateway) ~= owner_life then return take(session, conn, connected_at) end
  local now, stopped = now_ms(), ''
  since = tonumber(since or 0)
  if not some(waits) or now - since > TAKEOVER_MS then since = now end
  if some(waits) and waits ~= conn then
    if waiter == me then stopped = waits else tell(waiter, 'stop', session, waits) end
  end
  call('HSET', key, 'next_gateway', me, 'next_connection', conn, 'next_life', life, 'next_at', since)
  if gateway ~= me then tell(gateway, 'stop', session, owner) end
  return {'WAIT', session, gateway, owner, since + TAKEOVER_MS - now, stopped}
end

local function open(at, conn, connected_at)
  local session, token = ARGV[at], ARGV[at + 1]
  local other = call('HGET', 'session:' .. token, 'session_id')
  if other then end_session(other) end
  if call('EXISTS', 'session:' .. session) == 1 then end_session(session) end
  write(at, conn, window)
  local kicked = call('GET', 'user:' .. ARGV[at + 3] .. ':kicked') or ''
  call('HSET', 'session:' .. session, 'kicked', kicked)
  put_socket(conn, session, ARGV[at + 3], ARGV[at + 4], connected_at, ARGV[at + 10])
  return {'OPENED', kicked}
end

local function wake_waiter(session, token)
  local waiter, waits, waiter_life =
    unpack(call('HMGET', 'session:' .. session, 'next_gateway', 'next_connection', 'next_life'))
  if some(waiter) and waiter ~= me and lease(waiter) == waiter_life then
    tell(waiter, 'yours', session, waits, token)
  end
end

-- A hub's players, the oldest first, and one who was kicked and whose place is still counted.
local function players(info)
  local found, vacated, fields = {}, nil, call('HGETALL', info)
  for index = 1, #fields, 2 do
    local id = fields[index]:match('^player:(.*)$')
    if id then
      local order, seen, name = fields[index + 1]:match('^(%d+) (%d+) (.*)$')
      found[#found + 1] = {id = id, order = tonumber(order), seen = tonumber(seen), name = name}
    end
    vacated = vacated or fields[index]:match('^vacated:(.*)$')
  end
  table.sort(found, function(a, b) return a.order < b.order end)
  return found, vacated
end

local function enrol(info, id, name)
  local order = call('HINCRBY', info, 'players', 1)
  call('HSET', info, 'player:' .. id, order .. ' ' .. string.format('%.0f', now_ms()) .. ' ' .. name)
end

-- What is `reaped` belongs to a gateway whose lease is gone; the lease itself is the reapers' lock.
local function reaps(gateway)
  if gateway == me then return true end
  if lease(gateway) ~= 'reaped by ' .. me then return false end
  call('PEXPIRE', 'gateway:' .. gateway, LEASE_MS)
  return true
end

local unfenced = {}

-- Registers: `life` is the one before, 0 for a new process, which takes the place of its former one.
function unfenced.register()
  local held = lease(me)
  if held and held:find('^reaped') then return {'LATER'} end
  if held and held ~= life and life ~= '0' then return {'TAKEN', held} end
  if held == life then
    call('PEXPIRE', 'gateway:' .. me, LEASE_MS)
    return {'HELD', life}
  end
  local new = math.max(now_ms(), tonumber(life) + 1, tonumber(held or 0) + 1)
  new = string.format('%.0f', new)
  call('SET', 'gateway:' .. me, new, 'PX', LEASE_MS)
  call('PUBLISH', LEASES, me)
  return {'HELD', new}
end

function unfenced.release()
  if lease(me) == life then call('DEL', 'gateway:' .. me) end
  return {'OK'}
end

-- Which of these gateways have no lease.
function unfenced.missing()
  local found = {'OK'}
  for index = 5, #ARGV do
    if not lease(ARGV[index]) then found[#found + 1] = ARGV[index] end
  end
  return found
end

-- A step of a look for gateways that have a lease or connections.
function unfenced.find()
  local cursor, keys = unpack(call('SCAN', ARGV[5], 'MATCH', 'gateway:*', 'COUNT', 2000))
  local found = {'OK', cursor}
  for _, key in ipairs(keys) do
    found[#found + 1] = key:match('^gateway:(.*):sockets$') or key:match('^gateway:(.*)$')
  end
  return found
end

function unfenced.lock()
  local lock = 'reaped by ' .. me
  if lease(ARGV[5]) == lock or call('SET', 'gateway:' .. ARGV[5], lock, 'NX', 'PX', LEASE_MS) then return {'OK'} end
  return {'NO'}
end

-- A page of the gateway's connections, and of what was said of them.
function unfenced.sockets()
  local cursor, conns = unpack(call('SSCAN', 'gateway:' .. ARGV[5] .. ':sockets', ARGV[6], 'COUNT', 256))
  local found = {'OK', cursor}
  for _, conn in ipairs(conns) do
    local fields = call('HMGET', 'socket:' .. conn, 'user_id', 'username', 'session_id', 'incarnation')
    found[#found + 1] = {conn, fields[1] or '', fields[2] or '', fields[3] or '', fields[4] or ''}
  end
  return found
end

-- Takes these connections of the gateway out; their sessions are detached, and this gateway's to remember.
function unfenced.reap()
  local gateway = ARGV[5]
  if not reaps(gateway) then return {'NO'} end
  local found = {'OK'}
  for index = 6, #ARGV do
    local conn = ARGV[index]
    local session = call('HGET', 'socket:' .. conn, 'session_id')
    local key = 'session:' .. (session or '')
    if session and call('HGET', key, 'connection_id') == conn then
      call('HSET', key, 'connection_id', '', 'last_close', 'connection_lost', 'gateway_id', me, 'incarnation', life)
      call('HINCRBY', key, 'version', 1)
      local token, user, rooms = unpack(call('HMGET', key, 'token', 'user_id', 'rooms'))
      expire(session, token, window)
      touch_hubs(rooms, window + window / 4, user)
      wake_waiter(session, token)
      if is_kicked(session) then end_session(session) else found[#found + 1] = record(session) end
    end
    drop_socket(conn, gateway)
  end
  return found
end

-- A step of a look for the gateway's detached sessions, which become this one's to remember.
function unfenced.adopt()
  local gateway = ARGV[5]
  if not reaps(gateway) then return {'NO'} end
  local cursor, keys = unpack(call('SCAN', ARGV[6], 'MATCH', 'session:*', 'COUNT', 500))
  local found = {'OK', cursor}
  for _, key in ipairs(keys) do
    local owner, conn = unpack(call('HMGET', key, 'gateway_id', 'connection_id'))
    if owner == gateway and conn == '' then
      call('HSET', key, 'gateway_id', me, 'incarnation', life)
      call('HINCRBY', key, 'version', 1)
      local session = key:match('^session:(.*)$')
      if is_kicked(session) then end_session(session) else found[#found + 1] = record(session) end
    end
  end
  return found
end

function unfenced.reaped()
  if ARGV[5] ~= me and lease(ARGV[5]) == 'reaped by ' .. me then call('DEL', 'gateway:' .. ARGV[5]) end
  return {'OK'}
end

local fenced = {}

function fenced.renew()
  call('PEXPIRE', 'gateway:' .. me, LEASE_MS)
  call('PUBLISH', LEASES, me)
  return {'OK'}
end

function fenced.open() return open(7, ARGV[5], ARGV[6]) end

function fenced.claim() return claim(ARGV[5], ARGV[6], ARGV[7], ARGV[8]) end

function fenced.seize()
  local session, conn = ARGV[5], ARGV[6]
  local key = 'session:' .. session
  local version, waits = unpack(call('HMGET', key, 'version', 'next_connection'))
  if not version then return {'EXPIRED'} end
  if is_kicked(session) then
    end_session(session)
    return {'EXPIRED'}
  end
  if waits ~= conn then return {'NO'} end
  call('HSET', key, 'last_close', 'replaced')
  return take(session, conn, ARGV[7])
end

function fenced.unwait()
  local key = 'session:' .. ARGV[5]
  if call('HGET', key, 'next_connection') == ARGV[6] then
    call('HDEL', key, 'next_gateway', 'next_connection', 'next_life', 'next_at')
  end
  return {'OK'}
end

-- The whole record of a session that the connection owns.
function fenced.put()
  local conn, connected_at, session, version = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[9])
  local known, owner, gateway = unpack(call('HMGET', 'session:' .. session, 'version', 'connection_id', 'gateway_id'))
  if known and tonumber(known) > version then
    drop_socket(conn)
    return {'LOST'}
  end
  if some(owner) and owner ~= conn and gateway ~= me then tell(gateway, 'taken', session, version) end
  write(7, conn, window)
  put_socket(conn, session, ARGV[10], ARGV[11], connected_at, ARGV[17])
  return {'KEPT'}
end

-- The whole record of a session that the connection (may be none) owned until now.
function fenced.detach()
  local conn, ms, session, version = ARGV[5], tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[9])
  if conn ~= '' then drop_socket(conn) end
  local known = call('HGET', 'session:' .. session, 'version')
  if known and tonumber(known) > version then return {'LOST'} end
  write(7, '', ms)
  touch_hubs(ARGV[17], ms + window / 4, ARGV[10])
  wake_waiter(session, ARGV[8])
  return {'KEPT'}
end

-- Ends a session, unless it is another's now.
function fenced.finish()
  local session, version, conn = ARGV[5], tonumber(ARGV[6]), ARGV[7]
  if conn ~= '' then drop_socket(conn) end
  local known = call('HGET', 'session:' .. session, 'version')
  if known and tonumber(known) <= version then end_session(session) end
  return {'OK'}
end

-- The user was kicked, by the event at this place of a topic if it was one; whoever hears of one late changes nothing.
function fenced.kick()
  local user, topic, place, ms = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
  leave_hub(user)
  if topic == '' then return {'OK'} end
  local key = 'user:' .. user .. ':kicked'
  local last, before = (call('GET', key) or ''):match('^(%d+) (.*)$')
  if before == topic and tonumber(last) >= tonumber(place) then return {'OK'} end
  call('SET', key, place .. ' ' .. topic, 'PX', ms)
  return {'OK'}
end

function fenced.members()
  local cursor, conns = unpack(call('SSCAN', 'room:' .. ARGV[5] .. ':sockets', ARGV[6], 'COUNT', 256))
  local found = {'OK', cursor}
  for _, conn in ipairs(conns) do
    local fields = call('HMGET', 'socket:' .. conn, 'session_id', 'user_id', 'username')
    if fields[1] then found[#found + 1] = {conn, fields[1], fields[2], fields[3]} end
  end
  return found
end

function fenced.create_hub()
  local room, player, name, max = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
  for index = 9, #ARGV do
    local code = ARGV[index]
    local ms = math.floor(window / 2)
    if call('SET', 'room:code:' .. code, room, 'NX', 'PX', ms) then
      local info = 'room:' .. room .. ':info'
      call('HSET', info, 'admission', 'token', 'code', code, 'max_players', max)
      enrol(info, player, name)
      call('PEXPIRE', info, ms)
      keep_ways(room, ms, player)
      return {'ENROLLED', room, code, ''}
    end
  end
  return {'TAKEN'}
end

function fenced.join_hub()
  local code, player, name = ARGV[5], ARGV[6], ARGV[7]
  local room = call('GET', 'room:code:' .. code)
  local info = 'room:' .. (room or '') .. ':info'
  local max = room and call('HGET', info, 'max_players')
  if not max then return {'NONE'} end
  local found, vacated = players(info)
  local gone
  if #found >= tonumber(max) then
    local now = now_ms()
    for _, other in ipairs(found) do
      local free = other.seen + window <= now and call('EXISTS', 'user:' .. other.id .. ':sockets') == 0
      if free and (not gone or other.seen < gone.seen) then gone = other end
    end
    if not gone then return {'FULL'} end
    call('HDEL', info, 'player:' .. gone.id)
    call('DEL', 'user:' .. gone.id .. ':hub')
  elseif vacated then
    call('HDEL', info, 'vacated:' .. vacated)
  end
  enrol(info, player, name)
  touch_hub(room, window / 2, player)
  return {'ENROLLED', room, code, gone and gone.id or vacated or ''}
end

function fenced.find_hub()
  local room = call('GET', 'room:code:' .. ARGV[5])
  local info = 'room:' .. (room or '') .. ':info'
  local max = room and call('HGET', info, 'max_players')
  if not max then return {'NONE'} end
  local found = {'HUB', room, max}
  for _, player in ipairs(players(info)) do
    found[#found + 1] = player.id
    found[#found + 1] = player.name
  end
  return found
end

function fenced.hub_state()
  local found = {'OK'}
  for _, player in ipairs(players('room:' .. ARGV[5] .. ':info')) do
    local connected = call('EXISTS', 'user:' .. player.id .. ':sockets')
    found[#found + 1] = {player.id, player.name, connected}
  end
  return found
end

-- The session of a hub's player: the one there is, or this.
function fenced.attach()
  local room, conn, connected_at, token, user = ARGV[5], ARGV[6], ARGV[7], ARGV[9], ARGV[11]
  if call('HEXISTS', 'room:' .. room .. ':info', 'player:' .. user) == 0 then return {'EXPIRED'} end
  touch_hub(room, window / 4, user, now_ms())
  if call('EXISTS', 'session:' .. token) == 1 then
    local claimed = claim(token, conn, connected_at, user)
    if claimed[1] ~= 'EXPIRED' then return claimed end
  end
  return open(8, conn, connected_at)
end

if unfenced[op] then return unfenced[op]() end
if lease(me) ~= life then return {'FENCED', lease(me) or ''} end
return fenced[op]()
