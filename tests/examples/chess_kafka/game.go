package main

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/google/uuid"
)

const newBoard = "rnbqkbnrpppppppp................................PPPPPPPPRNBQKBNR" // a8 to h1, white in capitals

var square = regexp.MustCompile("^[a-h][1-8]$")

type object = map[string]any

// What is read of a command's envelope. The payload is a map because names are exact there: a struct would take a player's
// "ROOM_ID" for the "room_id" that the gateway vouches for.
type command struct {
	ID          uuid.UUID `json:"event_id"`
	Type        string    `json:"event_type"`
	Timestamp   string    `json:"timestamp"`
	Session     string    `json:"session_id"`
	Correlation any       `json:"correlation_id"`
	User        struct {
		ID   string `json:"user_id"`
		Name string `json:"username"`
	} `json:"user"`
	Payload object `json:"payload"`
}

func (c *command) text(field string) string {
	text, _ := c.Payload[field].(string)
	return text
}

// The record of a room's game.
type game struct {
	Seats []string    `json:"seats"`
	Board string      `json:"board"`
	Moves int         `json:"moves"`
	Done  []uuid.UUID `json:"done"`  // the last commands
	Place [2]int64    `json:"place"` // partition and offset of the last of them
}

type event struct {
	kind            string
	target, payload object
}

// play says what follows from a command, in order, and changes the game.
func (g *game) play(c *command) []event {
	id, me := c.text("room_id"), c.User.ID
	if !strings.HasPrefix(id, "chess.") { // nobody comes into another's room by joining a game there
		return refuse(c, "forbidden", "rooms of this game are named chess.<any name>")
	}
	sender, room := object{"session_id": c.Session}, object{"room_id": id}
	seat := g.seat(me)
	switch strings.TrimPrefix(c.Type, prefix) {
	case "join":
		came := seat < 0 && len(g.Seats) < 2
		if came {
			g.Seats = append(g.Seats, me)
		}
		player := object{"user_id": me, "username": c.User.Name}
		// The type table's row of lobby_joined lets the session into the room: what the room hears behind it, the session hears.
		told := []event{{"games.event.lobby_joined", sender, object{
			"room_id": id, "room_name": id, "player": player, "players": append([]string{}, g.Seats...), "board": g.Board,
		}}}
		if came {
			joined := object{"room_id": id, "user_id": me, "username": c.User.Name, "seat": len(g.Seats)}
			told = append(told, event{"games.event.player_joined", room, joined})
		}
		return told
	case "leave":
		told := []event{{"games.event.room_left", sender, room}} // and this row lets it out
		if seat >= 0 {
			told = append(told, g.ended(room, seat))
		}
		return told
	case "move":
		if from, to := c.text("from"), c.text("to"); square.MatchString(from) && square.MatchString(to) {
			return g.move(c, room, seat, from, to)
		}
	}
	return refuse(c, "bad_request", "join, leave, or move from one square to another")
}

func (g *game) move(c *command, room object, seat int, from, to string) []event {
	if seat < 0 {
		return refuse(c, "not_your_turn", "you have no seat")
	}
	if len(g.Seats) < 2 || seat != g.Moves%2 {
		return refuse(c, "not_your_turn", "wait for your turn")
	}
	start, end := 8*('8'-from[1])+from[0]-'a', 8*('8'-to[1])+to[0]-'a'
	piece, taken := rune(g.Board[start]), rune(g.Board[end])
	mine := func(r rune) bool { return unicode.IsLetter(r) && unicode.IsUpper(r) == (seat == 0) }
	if !mine(piece) || mine(taken) {
		return refuse(c, "bad_request", "move a piece of yours to where you have none")
	}
	board := []byte(g.Board)
	board[start], board[end] = '.', byte(piece)
	g.Board, g.Moves = string(board), g.Moves+1
	told := []event{{"games.event.chess.moved", room, object{
		"room_id": room["room_id"], "player_id": c.User.ID, "from": from, "to": to, "piece": string(piece), "n": g.Moves,
	}}}
	if taken == 'k' || taken == 'K' {
		return append(told, g.ended(room, 1-seat))
	}
	// Only the other player sees this one; the others are told its place, so that nobody suspects a loss.
	only := object{"room_id": room["room_id"], "only": []string{g.Seats[1-seat]}}
	return append(told, event{"games.event.chess.your_turn", only, object{"room_id": room["room_id"], "n": g.Moves + 1}})
}

// ended says that the other one has won; the seats are free again.
func (g *game) ended(room object, loser int) event {
	var winner any
	if len(g.Seats) == 2 {
		winner = g.Seats[1-loser]
	}
	g.Seats, g.Board, g.Moves = []string{}, newBoard, 0
	return event{"games.event.game_ended", room, object{"room_id": room["room_id"], "winner_id": winner}}
}

func (g *game) seat(user string) int {
	for n, name := range g.Seats {
		if name == user {
			return n
		}
	}
	return -1
}

func refuse(c *command, code, message string) []event {
	answer := object{"code": code, "message": message, "correlation_id": c.Correlation}
	return []event{{"games.event.error", object{"session_id": c.Session}, answer}}
}
