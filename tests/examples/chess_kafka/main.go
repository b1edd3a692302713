// A turn game as a backend of ringgate over Kafka: chess_kafka.py in Go, with the same commands, events and records, so
// that one goes on where the other was stopped. What is said there of losing and doubling nothing holds here too.
// game.go has the rules; this file is Kafka.
//
//	chess_kafka 127.0.0.1:9092 [instance, default chess-1]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	commands, events, state, prefix = "games.commands", "games.events", "chess.state", "games.command.chess."

	doneMax = 32 // ids kept of a game's last commands: a client that repeats one, repeats it soon
)

var roomID = regexp.MustCompile("^[A-Za-z0-9._-]{1,64}$")

func main() {
	ctx, kafka, instance, games := context.Background(), kgo.SeedBrokers(os.Args[1]), "chess-1", map[string]*game{}
	if len(os.Args) > 2 {
		instance = os.Args[2]
	}
	must(create(ctx, kafka))
	client, err := kgo.NewClient(kafka,
		// The producer is idempotent by default; all events of a room go to one partition, as ringgate's own do.
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ConsumerGroup("chess"), kgo.ConsumeTopics(commands), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// A name that stays: one that starts anew takes the place of the dead one at once instead of waiting for its session's end.
		kgo.InstanceID(instance), kgo.SessionTimeout(10*time.Second), kgo.Balancers(kgo.RangeBalancer()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			must(load(ctx, kafka, games))
			fmt.Printf("%d partitions, %d games\n", len(assigned[commands]), len(games))
		}))
	must(err)
	for {
		fetches := client.PollRecords(ctx, 100)
		for _, failed := range fetches.Errors() { // what does not get better by itself
			must(failed.Err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			if c := read(record); c != nil {
				must(step(ctx, client, games, record, c))
			}
		})
		// One that fails is made up for by the next: the games' records say what was done.
		_ = client.CommitRecords(ctx, fetches.Records()...)
		client.AllowRebalance()
	}
}

// read gives the command of a record; nil if it is not for this game. A record that cannot be read must not stop the others.
func read(record *kgo.Record) *command {
	var c command
	err := json.Unmarshal(record.Value, &c)
	if err == nil && !strings.HasPrefix(c.Type, prefix) {
		return nil
	}
	if err == nil && (c.ID == uuid.Nil || c.Session == "" || c.Timestamp == "" || c.User.ID == "" || !roomID.MatchString(c.text("room_id"))) {
		err = errors.New("a field is missing")
	}
	if err != nil {
		log.Printf("passed over %d/%d: %v", record.Partition, record.Offset, err)
		return nil
	}
	return &c
}

// step plays a command, unless it was played.
func step(ctx context.Context, client *kgo.Client, games map[string]*game, record *kgo.Record, c *command) error {
	room, place := c.text("room_id"), [2]int64{int64(record.Partition), record.Offset}
	g := games[room]
	if g == nil {
		g = &game{Seats: []string{}, Board: newBoard, Place: [2]int64{-1, -1}}
		games[room] = g
	}
	if place[0] == g.Place[0] && place[1] <= g.Place[1] {
		return nil
	}
	for _, id := range g.Done {
		if id == c.ID {
			return nil
		}
	}
	var envelopes []any
	for n, e := range g.play(c) {
		id := uuid.NewSHA1(c.ID, []byte(strconv.Itoa(n))) // version 5
		envelope := object{"event_id": id, "event_type": e.kind, "timestamp": c.Timestamp, "target": e.target, "payload": e.payload}
		envelopes = append(envelopes, envelope)
	}
	g.Done, g.Place = append(g.Done, c.ID), place
	if len(g.Done) > doneMax {
		g.Done = g.Done[1:]
	}
	if err := send(ctx, client, events, room, envelopes...); err != nil {
		return err
	}
	return send(ctx, client, state, room, g)
}

// send returns when all replicas in sync have the values.
func send(ctx context.Context, client *kgo.Client, topic, key string, values ...any) error {
	var records []*kgo.Record
	for _, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(key), Value: text})
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

// load reads the games' records, at the start and whenever partitions come from another instance.
func load(ctx context.Context, kafka kgo.Opt, games map[string]*game) error {
	start := map[string]map[int32]kgo.Offset{state: {0: kgo.NewOffset().AtStart()}}
	reader, err := kgo.NewClient(kafka, kgo.ConsumePartitions(start))
	if err != nil {
		return err
	}
	defer reader.Close()
	ends, err := kadm.NewClient(reader).ListEndOffsets(ctx, state)
	if err == nil {
		err = ends.Error()
	}
	for room := range games {
		delete(games, room)
	}
	end, _ := ends.Lookup(state, 0)
	for next := int64(0); err == nil && next < end.Offset; {
		reader.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			g := &game{}
			if wrong := json.Unmarshal(record.Value, g); wrong != nil {
				err = wrong
			}
			games[string(record.Key)], next = g, record.Offset+1
		})
	}
	return err
}

// create makes the topic of the games' records, if it is not there.
func create(ctx context.Context, kafka kgo.Opt) error {
	client, err := kgo.NewClient(kafka)
	if err != nil {
		return err
	}
	defer client.Close()
	compact := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
	made, err := kadm.NewClient(client).CreateTopics(ctx, 1, -1, compact, state)
	if err == nil && !errors.Is(made[state].Err, kerr.TopicAlreadyExists) {
		err = made[state].Err
	}
	return err
}

// What Kafka refuses for good ends this backend; the next start does what was not done.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
