package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
)

// run is a request that repeats an operation.
type run struct {
	client      *mongo.Client
	name        string
	perform     operation
	args        object
	concurrency int
	pause       time.Duration
	// count limits the operations where there is no deadline.
	count    int64
	deadline time.Time
	// over is done when no further operation shall begin.
	over    context.Context
	started int64

	mutex        sync.Mutex
	done, failed int
	errors       map[string]int
	acknowledged []interface{}
	result       object
}

func (a *agent) run(ctx context.Context, request object) (object, error) {
	name := request.text("name", "")
	client, _, err := a.client(name)
	if err != nil {
		return nil, err
	}
	perform, ok := operations[request.text("operation", "")]
	if !ok {
		return nil, fmt.Errorf("no operation is called %v", request["operation"])
	}
	begin := time.Now()
	over, stop := context.WithCancel(ctx)
	defer stop()
	run := &run{
		client:       client,
		name:         name,
		perform:      perform,
		args:         request.object("args"),
		concurrency:  request.number("concurrency", 1),
		pause:        request.milliseconds("pause", 0),
		count:        int64(request.number("count", 1)),
		over:         over,
		errors:       map[string]int{},
		acknowledged: []interface{}{},
	}
	if seconds, ok := request["seconds"].(json.Number); ok {
		limit, err := seconds.Float64()
		if err != nil {
			return nil, err
		}
		run.deadline = begin.Add(time.Duration(limit * float64(time.Second)))
	}
	id := request.number("id", -1)
	a.mutex.Lock()
	a.stops[id] = stop
	a.mutex.Unlock()

	var workers sync.WaitGroup
	workers.Add(run.concurrency)
	for worker := 0; worker < run.concurrency; worker++ {
		go func() {
			defer workers.Done()
			run.work(ctx)
		}()
	}
	workers.Wait()
	a.mutex.Lock()
	delete(a.stops, id)
	a.mutex.Unlock()

	answer := object{
		"done": run.done, "failed": run.failed, "errors": run.errors, "result": run.result,
		"seconds": time.Since(begin).Seconds(),
	}
	if run.args.is("list") {
		answer["acknowledged"] = run.acknowledged
	}
	return answer, nil
}

// more tells the number of the next operation, where there is to be one.
func (r *run) more() (int, bool) {
	if r.over.Err() != nil {
		return 0, false
	}
	if !r.deadline.IsZero() {
		return int(atomic.AddInt64(&r.started, 1)), time.Now().Before(r.deadline)
	}
	number := atomic.AddInt64(&r.started, 1)
	return int(number), number <= r.count
}

// work performs operations until there is none left.
func (r *run) work(ctx context.Context) {
	for number, more := r.more(); more; number, more = r.more() {
		if number > r.concurrency {
			time.Sleep(r.pause)
		}
		result, err := r.perform(ctx, r.client, r.args, number)
		if failure := r.add(result, err); failure != "" {
			write(object{"event": "operation_failed", "name": r.name, "at": now(), "error": failure})
		}
	}
}

// add counts a result; it returns the error, unless too many were returned already.
func (r *run) add(result object, err error) string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err == nil {
		r.done++
		r.result = result
		if r.args.is("list") {
			r.acknowledged = append(r.acknowledged, result["_id"])
		}
		return ""
	}
	r.failed++
	text := []rune(err.Error())
	if len(text) > 200 {
		text = text[:200]
	}
	failure := fmt.Sprintf("%T: %s", err, string(text))
	r.errors[failure]++
	if r.failed > failuresPrinted {
		return ""
	}
	return failure
}
