// The Go driver 1.8 behind the protocol of tests/drivers/README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/version"
)

const (
	// failuresPrinted failures of one run are printed one by one; all of them are counted.
	failuresPrinted = 300
	// closeLimit is how long a client that is not closed by force waits for its operations.
	closeLimit = 30 * time.Second
	// requestBytesMax is more than any request has.
	requestBytesMax = 1 << 20
)

// object is a JSON object, as requests and answers are.
type object map[string]interface{}

func (o object) text(field, otherwise string) string {
	if text, ok := o[field].(string); ok {
		return text
	}
	return otherwise
}

func (o object) number(field string, otherwise int) int {
	if number, ok := o[field].(json.Number); ok {
		if whole, err := number.Int64(); err == nil {
			return int(whole)
		}
	}
	return otherwise
}

// milliseconds reads a duration.
func (o object) milliseconds(field string, otherwise int) time.Duration {
	return time.Duration(o.number(field, otherwise)) * time.Millisecond
}

func (o object) is(field string) bool {
	is, ok := o[field].(bool)
	return ok && is
}

func (o object) object(field string) object {
	inner, _ := o[field].(map[string]interface{})
	return inner
}

// parse keeps numbers as they are written, for whoever asks for them.
func parse(text []byte) (object, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var parsed object
	return parsed, decoder.Decode(&parsed)
}

// marshal prints without the escapes that only browsers need.
func marshal(value interface{}) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return text.Bytes(), err
}

var output sync.Mutex

// write prints one line whole.
func write(line object) {
	text, err := marshal(line)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot print:", err)
		return
	}
	output.Lock()
	defer output.Unlock()
	// Whoever closed our output has no interest in it.
	_, _ = os.Stdout.Write(text)
}

// now is in seconds since the epoch.
func now() float64 {
	return float64(time.Now().UnixNano()) / 1e9
}

// held are operations that wait at the server.
type held struct {
	all   sync.WaitGroup
	count int
}

// cursor yields documents, or changes.
type cursor struct {
	next      func(context.Context) bool
	failure   func() error
	close     func(context.Context) error
	isEndless bool
}

type agent struct {
	mutex      sync.Mutex
	clients    map[string][]*mongo.Client
	references map[string][]*reference
	stops      map[int]context.CancelFunc
	cursors    map[string]*cursor
	held       map[string]*held
}

func (a *agent) client(name string) (*mongo.Client, *reference, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	clients, references := a.clients[name], a.references[name]
	if len(clients) == 0 {
		return nil, nil, fmt.Errorf("no client is called %s", name)
	}
	return clients[len(clients)-1], references[len(references)-1], nil
}

func (a *agent) open(ctx context.Context, request object) (object, error) {
	if len(request.object("options")) > 0 {
		return nil, errors.New("this driver takes its options from the URI")
	}
	name := request.text("name", "")
	reference := newReference(name, request.is("events"))
	chosen := options.Client().ApplyURI(request.text("uri", ""))
	reference.listen(chosen)
	client, err := mongo.Connect(ctx, chosen)
	if err != nil {
		return nil, err
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.clients[name] = append(a.clients[name], client)
	a.references[name] = append(a.references[name], reference)
	return object{}, nil
}

func (a *agent) stop(request object) (object, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if stop, ok := a.stops[request.number("run", -1)]; ok {
		stop()
	}
	return object{}, nil
}

func holdComment() string {
	return fmt.Sprintf("poolscope-hold-%d", os.Getpid())
}

func (a *agent) hold(ctx context.Context, request object) (object, error) {
	name := request.text("name", "")
	client, reference, err := a.client(name)
	if err != nil {
		return nil, err
	}
	concurrency := request.number("concurrency", 1)
	args := object{
		"milliseconds": json.Number(fmt.Sprint(request.number("milliseconds", 600000))),
		"comment":      holdComment(),
	}
	a.mutex.Lock()
	mine, ok := a.held[name]
	if !ok {
		mine = &held{}
		a.held[name] = mine
	}
	mine.count += concurrency
	mine.all.Add(concurrency)
	a.mutex.Unlock()
	wanted := reference.sleeping() + concurrency
	failures := make(chan error, concurrency)
	for number := 0; number < concurrency; number++ {
		go func(number int) {
			defer mine.all.Done()
			if _, err := sleep(ctx, client, args, number); err != nil {
				failures <- err
			}
		}(number)
	}
	for reference.sleeping() < wanted {
		select {
		case err := <-failures:
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
	return object{}, nil
}

func (a *agent) release(ctx context.Context, request object) (object, error) {
	name := request.text("name", "")
	a.mutex.Lock()
	mine, ok := a.held[name]
	delete(a.held, name)
	a.mutex.Unlock()
	if !ok {
		return object{"held": 0}, nil
	}
	over := make(chan struct{})
	go func() {
		mine.all.Wait()
		close(over)
	}()
	if control := request.text("control", ""); control != "" {
		killer, err := mongo.Connect(ctx, options.Client().ApplyURI(control))
		if err != nil {
			return nil, err
		}
		defer func() { _ = killer.Disconnect(ctx) }()
		for isOver := false; !isOver; {
			if err := killHeld(ctx, killer.Database("admin")); err != nil {
				return nil, err
			}
			select {
			case <-over:
				isOver = true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	<-over
	return object{"held": mine.count}, nil
}

// killHeld ends the server's operations that this process holds.
func killHeld(ctx context.Context, admin *mongo.Database) error {
	query := bson.D{{Key: "currentOp", Value: true}, {Key: "command.comment", Value: holdComment()}}
	var reply struct {
		InProgress []struct {
			Number interface{} `bson:"opid"`
		} `bson:"inprog"`
	}
	if err := admin.RunCommand(ctx, query).Decode(&reply); err != nil {
		return err
	}
	for _, operation := range reply.InProgress {
		kill := bson.D{{Key: "killOp", Value: 1}, {Key: "op", Value: operation.Number}}
		if err := admin.RunCommand(ctx, kill).Err(); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) cursorOpen(ctx context.Context, request object) (object, error) {
	client, _, err := a.client(request.text("name", ""))
	if err != nil {
		return nil, err
	}
	args := request.object("args")
	collection := collectionOf(client, args)
	wait := 200 * time.Millisecond
	var opened *cursor
	switch kind := request.text("kind", ""); kind {
	case "watch":
		stream, err := collection.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetMaxAwaitTime(wait))
		if err != nil {
			return nil, err
		}
		opened = &cursor{stream.TryNext, stream.Err, stream.Close, true}
	case "tailable", "find":
		how := options.Find().SetBatchSize(int32(args.number("batch", 2)))
		if kind == "tailable" {
			how = options.Find().SetCursorType(options.TailableAwait).SetMaxAwaitTime(wait)
		}
		found, err := collection.Find(ctx, bson.D{}, how)
		if err != nil {
			return nil, err
		}
		opened = &cursor{found.TryNext, found.Err, found.Close, kind == "tailable"}
	default:
		return nil, fmt.Errorf("%s is not supported by this driver", kind)
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.cursors[request.text("cursor", "")] = opened
	return object{}, nil
}

func (a *agent) cursorOf(request object) (*cursor, error) {
	name := request.text("cursor", "")
	a.mutex.Lock()
	defer a.mutex.Unlock()
	opened, ok := a.cursors[name]
	if !ok {
		return nil, fmt.Errorf("no cursor is called %s", name)
	}
	return opened, nil
}

func (a *agent) cursorNext(ctx context.Context, request object) (object, error) {
	opened, err := a.cursorOf(request)
	if err != nil {
		return nil, err
	}
	documents, wanted := 0, request.number("count", 1)
	deadline := time.Now().Add(request.milliseconds("milliseconds", 10000))
	for documents < wanted && time.Now().Before(deadline) {
		if opened.next(ctx) {
			documents++
		} else if err := opened.failure(); err != nil {
			return nil, err
		} else if !opened.isEndless {
			break
		}
	}
	return object{"documents": documents}, nil
}

func (a *agent) cursorClose(ctx context.Context, request object) (object, error) {
	opened, err := a.cursorOf(request)
	if err != nil {
		return nil, err
	}
	a.mutex.Lock()
	delete(a.cursors, request.text("cursor", ""))
	a.mutex.Unlock()
	return object{}, opened.close(ctx)
}

func (a *agent) perRequest(ctx context.Context, request object) (object, error) {
	name := request.text("name", "")
	perform, ok := operations[request.text("operation", "find")]
	if !ok {
		return nil, errors.New("no such operation")
	}
	for number := 0; number < request.number("count", 1); number++ {
		if _, err := a.open(ctx, request); err != nil {
			return nil, err
		}
		client, _, err := a.client(name)
		if err != nil {
			return nil, err
		}
		if _, err := perform(ctx, client, request.object("args"), number); err != nil {
			return nil, err
		}
		if request.is("close") {
			if _, err := a.close(ctx, request); err != nil {
				return nil, err
			}
		}
		time.Sleep(request.milliseconds("pause", 0))
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return object{"clients": len(a.clients[name])}, nil
}

// close waits for operations under way, unless it is forced: the driver waits where there is a deadline.
func (a *agent) close(ctx context.Context, request object) (object, error) {
	name := request.text("name", "")
	a.mutex.Lock()
	clients := a.clients[name]
	delete(a.clients, name)
	a.mutex.Unlock()
	if !request.is("force") {
		limited, cancel := context.WithTimeout(ctx, closeLimit)
		defer cancel()
		ctx = limited
	}
	for _, client := range clients {
		if err := client.Disconnect(ctx); err != nil {
			return nil, err
		}
	}
	return object{}, nil
}

func (a *agent) stats(request object) (object, error) {
	name := request.text("name", "")
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return stats(a.references[name], len(a.clients[name])), nil
}

func (a *agent) perform(ctx context.Context, request object) (object, error) {
	switch what := request.text("do", ""); what {
	case "open":
		return a.open(ctx, request)
	case "run":
		return a.run(ctx, request)
	case "stop":
		return a.stop(request)
	case "hold":
		return a.hold(ctx, request)
	case "release":
		return a.release(ctx, request)
	case "cursor_open":
		return a.cursorOpen(ctx, request)
	case "cursor_next":
		return a.cursorNext(ctx, request)
	case "cursor_close":
		return a.cursorClose(ctx, request)
	case "per_request":
		return a.perRequest(ctx, request)
	case "close":
		return a.close(ctx, request)
	case "stats":
		return a.stats(request)
	case "exit":
		return object{}, nil
	default:
		return nil, fmt.Errorf("nothing is called %s", what)
	}
}

func (a *agent) serve(ctx context.Context, request object) {
	answer, err := a.perform(ctx, request)
	if err != nil {
		answer = object{"error": fmt.Sprintf("%T: %v", err, err)}
	}
	answer["ok"] = err == nil
	answer["id"] = request["id"]
	write(answer)
}

func main() {
	ctx := context.Background()
	agent := &agent{
		clients:    map[string][]*mongo.Client{},
		references: map[string][]*reference{},
		stops:      map[int]context.CancelFunc{},
		cursors:    map[string]*cursor{},
		held:       map[string]*held{},
	}
	write(object{"event": "started", "driver": "go", "version": version.Driver[1:], "pid": os.Getpid()})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, requestBytesMax)
	for lines.Scan() {
		request, err := parse(lines.Bytes())
		if err != nil {
			fmt.Fprintln(os.Stderr, "no request:", err)
			continue
		}
		if request.text("do", "") == "exit" {
			agent.serve(ctx, request)
			return
		}
		go agent.serve(ctx, request)
	}
}
