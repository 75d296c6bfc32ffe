package main

import (
	"context"
	"sync"

	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// connectionKey names a connection: its number is one of its pool, and there is a pool for each server.
type connectionKey struct {
	address string
	id      uint64
}

// counts are what the driver's events amount to.
type counts struct {
	created, ready, checkedOut, cleared, sleeping int
	open                                          map[connectionKey]bool
	closed, checkoutFailed                        map[string]int
	started, succeeded, failed                    int
}

// reference holds what the driver's events say about one client.
type reference struct {
	name   string
	stream bool
	mutex  sync.Mutex
	counts counts
}

func newReference(name string, stream bool) *reference {
	return &reference{
		name:   name,
		stream: stream,
		counts: counts{
			open:           map[connectionKey]bool{},
			closed:         map[string]int{},
			checkoutFailed: map[string]int{},
		},
	}
}

// reason spells what this driver calls otherwise than the specification of CMAP.
func reason(name string) string {
	if name == event.ReasonConnectionErrored {
		return "error"
	}
	return name
}

// listen subscribes to all events that the options can hand out.
func (r *reference) listen(options *options.ClientOptions) {
	options.SetPoolMonitor(&event.PoolMonitor{Event: r.pool})
	options.SetServerMonitor(&event.ServerMonitor{
		ServerHeartbeatStarted: func(*event.ServerHeartbeatStartedEvent) {
			r.count(func(counts *counts) { counts.started++ })
		},
		ServerHeartbeatSucceeded: func(*event.ServerHeartbeatSucceededEvent) {
			r.count(func(counts *counts) { counts.succeeded++ })
		},
		ServerHeartbeatFailed: func(failed *event.ServerHeartbeatFailedEvent) {
			r.count(func(counts *counts) { counts.failed++ })
			r.saw("heartbeat_failed", object{"error": failed.Failure.Error()})
		},
	})
	options.SetMonitor(&event.CommandMonitor{
		Started: func(_ context.Context, started *event.CommandStartedEvent) {
			if started.CommandName == "sleep" {
				r.count(func(counts *counts) { counts.sleeping++ })
			}
		},
	})
}

func (r *reference) count(change func(*counts)) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	change(&r.counts)
}

func (r *reference) saw(event string, details object) {
	if !r.stream {
		return
	}
	line := object{"event": event, "name": r.name, "at": now()}
	for key, value := range details {
		line[key] = value
	}
	write(line)
}

func (r *reference) pool(seen *event.PoolEvent) {
	key := connectionKey{seen.Address, seen.ConnectionID}
	switch seen.Type {
	case event.PoolCreated:
		r.saw("pool_created", nil)
	case event.PoolCleared:
		r.count(func(counts *counts) { counts.cleared++ })
		r.saw("pool_cleared", nil)
	case event.PoolClosedEvent:
		r.saw("pool_closed", nil)
	case event.ConnectionCreated:
		r.count(func(counts *counts) {
			counts.created++
			counts.open[key] = true
		})
		r.saw("created", object{"connection": seen.ConnectionID})
	case event.ConnectionReady:
		r.count(func(counts *counts) { counts.ready++ })
		r.saw("ready", object{"connection": seen.ConnectionID})
	case event.ConnectionClosed:
		r.count(func(counts *counts) {
			delete(counts.open, key)
			counts.closed[reason(seen.Reason)]++
		})
		r.saw("closed", object{"connection": seen.ConnectionID, "reason": reason(seen.Reason)})
	case event.GetSucceeded:
		r.count(func(counts *counts) { counts.checkedOut++ })
	case event.ConnectionReturned:
		r.count(func(counts *counts) { counts.checkedOut-- })
	case event.GetFailed:
		r.count(func(counts *counts) { counts.checkoutFailed[reason(seen.Reason)]++ })
		r.saw("checkout_failed", object{"reason": reason(seen.Reason)})
	}
}

// sleeping tells how many commands called sleep were sent.
func (r *reference) sleeping() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.counts.sleeping
}

// stats adds up the counts of all clients of one name, closed ones included.
func stats(references []*reference, clients int) object {
	closed, checkoutFailed := map[string]int{}, map[string]int{}
	open := 0
	var sum counts
	for _, reference := range references {
		reference.count(func(counts *counts) {
			sum.created += counts.created
			sum.ready += counts.ready
			sum.checkedOut += counts.checkedOut
			sum.cleared += counts.cleared
			sum.started += counts.started
			sum.succeeded += counts.succeeded
			sum.failed += counts.failed
			open += len(counts.open)
			for reason, count := range counts.closed {
				closed[reason] += count
			}
			for reason, count := range counts.checkoutFailed {
				checkoutFailed[reason] += count
			}
		})
	}
	return object{
		"source":          "cmap",
		"clients":         clients,
		"created":         sum.created,
		"ready":           sum.ready,
		"closed":          closed,
		"open":            open,
		"checked_out":     sum.checkedOut,
		"checkout_failed": checkoutFailed,
		"cleared":         sum.cleared,
		"heartbeats":      object{"started": sum.started, "succeeded": sum.succeeded, "failed": sum.failed},
	}
}
