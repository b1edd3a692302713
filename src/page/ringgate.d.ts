// Types of ringgate.js. What a frame carries beyond its type is the application's; the server's own frames are typed.

/** A stream's place: `offset` counts within the numbering that `epoch` names. */
export interface Position {
  epoch: number;
  offset: number;
}

export interface StreamState extends Position {
  /** For example `games.events.0/room:42`. */
  stream: string;
  /** Reliable frames handled since the page was loaded. */
  frames: number;
  /** Deltas the server left out for this client because it was slow. */
  skipped: number;
}

/** A message of the server. `at` is `[handle, offset, prev]` for reliable frames, `[handle, offset]` for deltas. */
export interface Frame {
  type: string;
  at?: [handle: number, offset: number, prev?: number];
  correlation_id?: string;
  [field: string]: any;
}

export interface Authenticated extends Frame {
  type: "system.authenticated";
  user_id: string;
  username: string;
  roles: string[];
  session_id: string;
  resume: string;
  recovered: boolean;
  reason?: "expired" | "history_evicted" | "epoch_changed";
  lost?: string[];
  rooms: string[];
  last_close?: { code: number; reason: string };
}

export interface ErrorFrame extends Frame {
  type: "system.error";
  code: string;
  message: string;
}

export type Reconnect = "resume" | "delayed" | "no";
export interface CloseRow {
  code: number;
  text: string;
  reconnect: Reconnect;
  label: string;
}
export const CLOSE_TABLE: CloseRow[];
/** The row of a close frame. */
export function closeRow(code: number, text?: string): CloseRow;

/** `waiting` for the next attempt; `closed`: there is none without `connect`. */
export type State = "idle" | "connecting" | "authenticating" | "open" | "waiting" | "closed";

/** What the client itself tells. */
export interface ClientEvents {
  "client.state": { type: "client.state"; state: State; previous: State; delay_ms?: number };
  /** The connection is gone; `delay_ms` is null if no other one will be tried. */
  "client.closed": {
    type: "client.closed";
    code: number;
    reason: string;
    label: string;
    reconnect: Reconnect;
    delay_ms: number | null;
  };
  /** A session or part of its streams could not be resumed: what was sent meanwhile is missing. Fetch state anew. */
  "client.lost": { type: "client.lost"; reason: string; lost: string[]; rooms: string[] };
  /** A frame did not follow the one before it. The client resumes behind the last one that did. */
  "client.gap": { type: "client.gap"; what: string; stream?: string; position?: number; at: number[] };
  /** A message was not of the dialect. The client reconnects. */
  "client.fault": { type: "client.fault"; what: string };
  /** A handler threw. The frame comes again unless `passed_over`. */
  "client.handler_failed": {
    type: "client.handler_failed";
    error: unknown;
    frame: Frame;
    stream: string;
    passed_over: boolean;
  };
  /** `getToken` or `storage` failed. */
  "client.error": { type: "client.error"; error: unknown };
}

export interface ServerEvents {
  "system.welcome": Frame & { connection_id: string; timestamp: string; durability: string };
  "system.authenticated": Authenticated;
  "system.error": ErrorFrame;
  "system.skipped": Frame & { stream: number; count: number };
}

/** Beside the frame: the stream's name, and whether the frame is older than the connection (sent again by a resume). */
export interface About {
  stream?: string;
  replayed?: boolean;
}

export interface Stats {
  /** Times that the client was authenticated. */
  connections: number;
  /** Resumes without a loss. */
  resumed: number;
  /** Resumes with one. */
  lost: number;
  /** Reliable frames that were handled. */
  reliable: number;
  /** Those of them that came by a resume. */
  replayed: number;
  deltas: number;
  /** Deltas that the server left out. */
  skipped: number;
  /** Reliable frames that came again and were not handled again. */
  duplicates: number;
  gaps: number;
}

/** What `sessionStorage` offers. */
export interface KeptIn {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Where the client runs: for tests, and to give a Node before 22 the `WebSocket` of a library. */
export interface Environment {
  WebSocket: new (url: string) => any;
  setTimeout(act: () => void, ms: number): any;
  clearTimeout(timer: any): void;
  /** Milliseconds since 1970. */
  now(): number;
  /** At least 0, below 1. */
  random(): number;
  /** A new correlation id. */
  id(): string;
  /** Takes errors nobody handles. */
  report(error: unknown): void;
  /** Calls `awake` when the page is shown or online again, `hidden` when it may end. Returns what stops that. */
  listen(calls: { awake(): void; hidden(): void }): () => void;
}

export interface Options {
  /** `wss://host/ws` */
  url: string;
  /** A JWT that never changes. */
  token?: string;
  /** Fetches a JWT; called when one is needed: at first, before the old one ends, after the server refused one. */
  getToken?: () => string | Promise<string>;
  /** Deltas that may be under way unacknowledged; 0 = no credit is kept. Default 64. */
  deltaWindow?: number;
  /** Keeps the resume token over a reload, for example `sessionStorage`. A tab that is duplicated shares its session:
   * the older one is closed 4409. */
  storage?: KeptIn;
  /** What the page made of the frames so far, as JSON. It is stored together with the places and comes back as
   * `restored`, so that a reload goes on where the page was. Without it a reload starts where the session began. */
  keep?: () => unknown;
  /** Resume a session that was kept elsewhere. */
  resume?: { token: string; positions?: Record<string, Position> };

  /** Between heartbeats. Default 20,000. */
  heartbeatMs?: number;
  /** From a heartbeat to the next message of any kind; after that the connection is dead. Default 10,000. */
  replyMs?: number;
  /** From the attempt to being authenticated. Default 15,000. */
  openMs?: number;
  /** The first reconnect waits up to this, each further one up to twice as long. Default 500. */
  backoffMs?: number;
  /** Default 30,000. */
  backoffMaxMs?: number;
  /** The least delay where the server asks for one without naming it. Default 1,000. */
  delayedMs?: number;
  /** A connection that lasted this long makes the backoff start anew. Default 5,000. */
  stableMs?: number;
  /** How long a command waits for its acknowledgement, over any number of connections. Default 300,000. */
  commandMs?: number;
  /** The most the storage lags behind. Default 250. */
  saveMs?: number;
  /** How often a frame whose handler threw is asked for again before it is passed over. Default 2. */
  handlerRetries?: number;
  environment?: Partial<Environment>;
}

export interface SendOptions {
  /** Ask for an acknowledgement. */
  ack?: boolean;
  correlationId?: string;
  timeoutMs?: number;
}

/** `code` is the server's (`forbidden`, `rate_limited`, …) or the client's: `unauthorized`, where the server did
 * not accept the token, `timeout` and `session_gone`; in these the command may have been done or not. */
export class CommandError extends Error {
  code: string;
  correlationId: string;
  frame?: ErrorFrame;
}

/** The answer: `system.ack`, or the frame that a query asks for. */
export type Acknowledged = Promise<Frame> & { correlationId: string };

export class Ringgate {
  constructor(options: Options | string);
  readonly state: State;
  /** The last `system.authenticated`. */
  readonly session: Authenticated | null;
  readonly lastClose: { code: number; reason: string; label: string } | null;
  /** Of the last heartbeat. */
  readonly roundTripMs: number | null;
  readonly stats: Readonly<Stats>;
  readonly streams: StreamState[];
  readonly positions: Record<string, Position>;
  readonly resumeToken: string | undefined;
  /** Commands that wait for their acknowledgement. */
  readonly pending: number;
  /** What `keep` gave before the page was loaded. */
  readonly restored: any;

  /** `*` is every type. Handlers run in the order of the frames, before the place advances: one that throws gets the
   * frame again. A promise that a handler returns is not waited for. Returns what takes the handler off. */
  on<T extends keyof (ClientEvents & ServerEvents)>(
    type: T,
    handler: (event: (ClientEvents & ServerEvents)[T], about: About) => void,
  ): () => void;
  on(type: string, handler: (frame: Frame, about: About) => void): () => void;

  connect(options?: { token?: string }): this;

  /** With `ack`: resolves with the answer, rejects with CommandError. Waits for a connection, and asks again on the
   * next one with the same correlation id, by which the server does the command once. */
  send(type: string, fields: object | undefined, options: SendOptions & { ack: true }): Acknowledged;
  /** Without: whether it was handed to an open connection. */
  send(type: string, fields?: object, options?: SendOptions): boolean;
  send(message: { type: string } & object, options: SendOptions & { ack: true }): Acknowledged;
  send(message: { type: string } & object, options?: SendOptions): boolean;

  close(): void;
  forget(): void;
  dropConnection(): void;
}

export function connect(options: Options | string): Ringgate;
