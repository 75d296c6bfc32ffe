"""PyMongo 4 and 3.13 behind the protocol of README.md.

Requests run in threads of their own; what they print is one line each, written under a lock.
"""

import collections
import datetime
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import bson
import pymongo
from bson import json_util
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import monitoring
from pymongo.cursor import CursorType
from pymongo.write_concern import WriteConcern

# Failures that one `run` prints one by one; all of them are counted.
FAILURES_PRINTED = 300
HOLD = "poolscope-hold"
write_lock = threading.Lock()


def write(line):
    text = json.dumps(line)
    with write_lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class Reference(
    monitoring.ConnectionPoolListener, monitoring.ServerHeartbeatListener, monitoring.CommandListener
):
    """What the driver's events say about one client."""

    def __init__(self, name, stream):
        self.name = name
        self.stream = stream
        self.lock = threading.Lock()
        self.open = set()
        self.created = self.readied = self.checked_out = self.cleared = self.sleeping = 0
        self.closed = collections.Counter()
        self.checkout_failed = collections.Counter()
        self.heartbeats = collections.Counter()

    def saw(self, event, **details):
        if self.stream:
            write({"event": event, "name": self.name, "at": time.time(), **details})

    # Pools.
    def pool_created(self, event):
        self.saw("pool_created")

    def pool_ready(self, event):
        self.saw("pool_ready")

    def pool_cleared(self, event):
        with self.lock:
            self.cleared += 1
        self.saw("pool_cleared")

    def pool_closed(self, event):
        self.saw("pool_closed")

    def connection_created(self, event):
        with self.lock:
            self.open.add((event.address, event.connection_id))
            self.created += 1
        self.saw("created", connection=event.connection_id)

    def connection_ready(self, event):
        with self.lock:
            self.readied += 1
        self.saw("ready", connection=event.connection_id)

    def connection_closed(self, event):
        with self.lock:
            # PyMongo reports the end of an abandoned exhaust cursor's connection twice.
            if (event.address, event.connection_id) not in self.open:
                return
            self.open.remove((event.address, event.connection_id))
            self.closed[event.reason] += 1
        self.saw("closed", connection=event.connection_id, reason=event.reason)

    def connection_check_out_started(self, event):
        pass

    def connection_check_out_failed(self, event):
        with self.lock:
            self.checkout_failed[event.reason] += 1
        self.saw("checkout_failed", reason=event.reason)

    def connection_checked_out(self, event):
        with self.lock:
            self.checked_out += 1

    def connection_checked_in(self, event):
        with self.lock:
            self.checked_out -= 1

    # Servers. The listener interfaces share the names started, succeeded and failed.
    def started(self, event):
        if isinstance(event, monitoring.ServerHeartbeatStartedEvent):
            with self.lock:
                self.heartbeats["started"] += 1
        elif event.command_name == "sleep":
            with self.lock:
                self.sleeping += 1

    def succeeded(self, event):
        if isinstance(event, monitoring.ServerHeartbeatSucceededEvent):
            with self.lock:
                self.heartbeats["succeeded"] += 1

    def failed(self, event):
        if isinstance(event, monitoring.ServerHeartbeatFailedEvent):
            with self.lock:
                self.heartbeats["failed"] += 1
            self.saw("heartbeat_failed", error=str(event.reply))


def failed(name, message):
    write({"event": "operation_failed", "name": name, "at": time.time(), "error": message})


def stats(references, clients):
    """The counts of all clients of one name, closed ones included."""

    def total(counters):
        return dict(sum(counters, collections.Counter()))

    heartbeats = total(reference.heartbeats for reference in references)
    return {
        "source": "cmap",
        "clients": clients,
        "created": sum(reference.created for reference in references),
        "ready": sum(reference.readied for reference in references),
        "closed": total(reference.closed for reference in references),
        "open": sum(len(reference.open) for reference in references),
        "checked_out": sum(reference.checked_out for reference in references),
        "checkout_failed": total(reference.checkout_failed for reference in references),
        "cleared": sum(reference.cleared for reference in references),
        "heartbeats": {word: heartbeats.get(word, 0) for word in ("started", "succeeded", "failed")},
    }


def collection_of(client, args):
    return client[args.get("database", "poolscope")][args.get("collection", "items")]


def document(args, number):
    made = {"n": number, "from": "pymongo"}
    if "prefix" in args:
        made["_id"] = "%s-%d" % (args["prefix"], number)
    if args.get("bytes"):
        made["padding"] = "x" * args["bytes"]
    return made


def drain(cursor):
    documents = padding = 0
    for found in cursor:
        documents += 1
        padding += len(found.get("padding", ""))
    return {"documents": documents, "bytes": padding}


def ping(client, args, number):
    client.admin.command("ping")
    return {}


def insert(client, args, number):
    made = document(args, number)
    collection_of(client, args).insert_one(made)
    return {"inserted": 1, "_id": str(made["_id"])}


def insert_w0(client, args, number):
    collection_of(client, args).with_options(write_concern=WriteConcern(w=0)).insert_one(document(args, number))
    return {}


def insert_many(client, args, number):
    many = [document({"bytes": args.get("bytes", 0)}, index) for index in range(args.get("documents", 3))]
    return {"inserted": len(collection_of(client, args).insert_many(many).inserted_ids)}


def find(client, args, number, cursor_type=CursorType.NON_TAILABLE):
    cursor = collection_of(client, args).find({}, limit=args.get("limit", 0), cursor_type=cursor_type)
    return drain(cursor.batch_size(args.get("batch", 0)))


def exhaust(client, args, number):
    return find(client, args, number, CursorType.EXHAUST)


def bulk(client, args, number):
    half = args.get("documents", 100)
    writes = [pymongo.InsertOne({"bulk": number, "n": index}) for index in range(half)]
    writes.append(pymongo.UpdateMany({"bulk": number}, {"$set": {"seen": True}}))
    writes.append(pymongo.DeleteMany({"bulk": number}))
    result = collection_of(client, args).bulk_write(writes)
    return {"inserted": result.inserted_count, "updated": result.modified_count, "deleted": result.deleted_count}


def aggregate(client, args, number):
    groups = collection_of(client, args).aggregate([{"$group": {"_id": {"$mod": [{"$ifNull": ["$n", 0]}, 7]}}}])
    return {"groups": len(list(groups))}


def crud(client, args, number):
    collection = collection_of(client, args)
    key = bson.ObjectId()
    assert collection.insert_one({"_id": key, "n": number}).inserted_id == key
    assert collection.find_one({"_id": key}) == {"_id": key, "n": number}
    assert collection.update_one({"_id": key}, {"$inc": {"n": 1}}).modified_count == 1
    assert collection.find_one_and_replace({"_id": key}, {"n": -1})["n"] == number + 1
    assert collection.count_documents({"_id": key, "n": -1}) == 1
    assert collection.delete_one({"_id": key}).deleted_count == 1
    assert collection.find_one({"_id": key}) is None
    return {"checked": 7}


def every_type():
    return {
        "double": 1.5,
        "string": "text with \u00e9 and \u4e2d",
        "document": {"a": {"b": 1}},
        "array": [1, "two", None],
        "binary": bson.Binary(bytes(range(256)), 128),
        "uuid": bson.Binary(bytes(range(16)), 4),
        "object_id": bson.ObjectId(),
        "boolean": True,
        "date": datetime.datetime(2020, 2, 29, 12, 30, 15, 123000),
        "null": None,
        "regex": bson.Regex("^a.*b$", "ix"),
        "reference": bson.DBRef("items", 1),
        "code": bson.Code("function() { return 1; }"),
        "code_with_scope": bson.Code("function() { return x; }", {"x": 1}),
        "int32": 7,
        "timestamp": bson.Timestamp(1600000000, 2),
        "int64": bson.Int64(1 << 40),
        "decimal": bson.Decimal128("1.5E+10"),
        "min_key": bson.MinKey(),
        "max_key": bson.MaxKey(),
    }


def types(client, args, number):
    values = every_type()
    plain = CodecOptions(uuid_representation=UuidRepresentation.UNSPECIFIED)
    collection = collection_of(client, args).with_options(codec_options=plain)
    key = collection.insert_one(dict(values)).inserted_id
    found = collection.find_one({"_id": key})
    collection.delete_one({"_id": key})
    del found["_id"]
    return {"equal": found == values, "types": len(values)}


def transaction(client, args, number):
    collection = collection_of(client, args)
    with client.start_session() as session:
        with session.start_transaction():
            collection.insert_one({"transaction": number, "n": 1}, session=session)
            collection.insert_one({"transaction": number, "n": 2}, session=session)
    return {"committed": True}


def sleep_command(args):
    command = {"sleep": 1, "millis": args.get("milliseconds", 1000), "lock": "none"}
    if "comment" in args:
        command["comment"] = args["comment"]
    return bson.SON(command)


def sleep(client, args, number):
    client.admin.command(sleep_command(args))
    return {}


def drop(client, args, number):
    collection_of(client, args).drop()
    return {}


def create_capped(client, args, number):
    collection = collection_of(client, args)
    collection.drop()
    client[collection.database.name].create_collection(collection.name, capped=True, size=1 << 20)
    collection.insert_one({"first": True})
    return {}


def command_reply(reply):
    return json.loads(json_util.dumps(reply))


def command(client, args, number):
    return command_reply(client[args.get("on", "admin")].command(bson.SON(args["command"])))


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        ping, insert, insert_w0, insert_many, find, exhaust, bulk, aggregate, crud, types, transaction, sleep, drop,
        create_capped, command,
    )
}


class Run:
    """One `run` request: its operations are numbered, and end together with it."""

    def __init__(self, client, request):
        self.client = client
        self.name = request["name"]
        self.operation = OPERATIONS[request["operation"]]
        self.args = request.get("args", {})
        self.seconds = request.get("seconds")
        self.count = request.get("count", 1)
        self.concurrency = request.get("concurrency", 1)
        self.pause = request.get("pause", 0) / 1000
        self.stopped = False
        self.lock = threading.Lock()
        self.started = self.done = self.failed = 0
        self.errors = collections.Counter()
        self.acknowledged = []
        self.result = None

    def more(self):
        with self.lock:
            if self.stopped:
                return None
            if self.seconds is not None:
                if time.monotonic() >= self.deadline:
                    return None
            elif self.started >= self.count:
                return None
            self.started += 1
            return self.started

    def work(self):
        for number in iter(self.more, None):
            if self.pause and number > self.concurrency:
                time.sleep(self.pause)
            try:
                result = self.operation(self.client, self.args, number)
            except Exception as error:
                message = "%s: %s" % (type(error).__name__, str(error)[:200])
                with self.lock:
                    self.failed += 1
                    self.errors[message] += 1
                    prints = self.failed <= FAILURES_PRINTED
                if prints:
                    failed(self.name, message)
                continue
            with self.lock:
                self.done += 1
                self.result = result
                if self.args.get("list"):
                    self.acknowledged.append(result["_id"])

    def answer(self):
        begin = time.monotonic()
        self.deadline = begin + (self.seconds or 0)
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(self.concurrency)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        answer = {
            "done": self.done,
            "failed": self.failed,
            "errors": dict(self.errors),
            "seconds": time.monotonic() - begin,
            "result": self.result,
        }
        if self.args.get("list"):
            answer["acknowledged"] = self.acknowledged
        return answer


class Hammer:
    """Workers of which each makes a client, uses it until that fails, and makes another at once."""

    def __init__(self, agent, request):
        self.agent = agent
        self.request = request
        self.stopped = False
        self.lock = threading.Lock()
        self.clients = self.failed = 0

    def use(self):
        request = self.request
        reference = Reference(request["name"], request.get("events", False))
        self.agent.references[request["name"]].append(reference)
        operation, number = OPERATIONS[request.get("operation", "find")], 0
        client = pymongo.MongoClient(request["uri"], event_listeners=[reference])
        try:
            while not self.stopped:
                operation(client, request.get("args", {}), number)
                number += 1
                time.sleep(request.get("pause", 0) / 1000)
        finally:
            client.close()

    def work(self):
        while not self.stopped:
            with self.lock:
                self.clients += 1
            try:
                self.use()
            except Exception as error:
                with self.lock:
                    self.failed += 1
                    prints = self.failed <= FAILURES_PRINTED
                if prints:
                    failed(self.request["name"], "%s: %s" % (type(error).__name__, str(error)[:200]))

    def answer(self):
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(self.request.get("concurrency", 1))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"clients": self.clients, "failed": self.failed}


class Agent:
    def __init__(self):
        self.clients = collections.defaultdict(list)
        self.references = collections.defaultdict(list)
        self.runs = {}
        self.cursors = {}
        self.held = collections.defaultdict(list)

    def client(self, request):
        return self.clients[request["name"]][-1]

    def do_open(self, request):
        name = request["name"]
        reference = Reference(name, request.get("events", False))
        client = pymongo.MongoClient(request["uri"], event_listeners=[reference], **request.get("options", {}))
        self.references[name].append(reference)
        self.clients[name].append(client)
        return {}

    def do_run(self, request):
        run = Run(self.client(request), request)
        self.runs[request["id"]] = run
        try:
            return run.answer()
        finally:
            del self.runs[request["id"]]

    def do_stop(self, request):
        run = self.runs.get(request["run"])
        if run is not None:
            run.stopped = True
        return {}

    def do_hold(self, request):
        name, concurrency = request["name"], request["concurrency"]
        client, reference = self.client(request), self.references[name][-1]
        args = {"milliseconds": request.get("milliseconds", 600000), "comment": "%s-%d" % (HOLD, os.getpid())}
        wanted = reference.sleeping + concurrency
        executor = ThreadPoolExecutor(concurrency)
        held = [executor.submit(sleep, client, args, number) for number in range(concurrency)]
        self.held[name] += held
        executor.shutdown(wait=False)
        while reference.sleeping < wanted:
            for operation in held:
                if operation.done():
                    operation.result()
            time.sleep(0.005)
        return {}

    def do_release(self, request):
        held = self.held.pop(request["name"], [])
        if "control" in request:
            control = pymongo.MongoClient(request["control"], directConnection=True)
            pending = held
            while pending:
                kill(control)
                pending = [operation for operation in pending if not operation.done()]
                time.sleep(0.01)
            control.close()
        for operation in held:
            operation.exception()
        return {"held": len(held)}

    def do_cursor_open(self, request):
        args = request.get("args", {})
        collection = collection_of(self.client(request), args)
        kind = request["kind"]
        if kind == "watch":
            cursor = collection.watch(max_await_time_ms=200)
        elif kind == "tailable":
            cursor = collection.find({}, cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(200)
        elif kind == "exhaust":
            cursor = collection.find({}, cursor_type=CursorType.EXHAUST).batch_size(args.get("batch", 2))
        else:
            cursor = collection.find({}).batch_size(args.get("batch", 2))
        self.cursors[request["cursor"]] = (kind, cursor)
        return {}

    def do_cursor_next(self, request):
        kind, cursor = self.cursors[request["cursor"]]
        wanted = request.get("count", 1)
        deadline = time.monotonic() + request.get("milliseconds", 10000) / 1000
        documents = 0
        while documents < wanted and time.monotonic() < deadline:
            if kind == "watch":
                documents += cursor.try_next() is not None
                continue
            try:
                cursor.next()
                documents += 1
            except StopIteration:
                if kind != "tailable" or not cursor.alive:
                    break
        return {"documents": documents}

    def do_cursor_close(self, request):
        self.cursors.pop(request["cursor"])[1].close()
        return {}

    def do_per_request(self, request):
        operation = OPERATIONS[request.get("operation", "find")]
        for number in range(request["count"]):
            self.do_open(request)
            operation(self.clients[request["name"]][-1], request.get("args", {}), number)
            if request.get("close"):
                self.do_close(request)
            time.sleep(request.get("pause", 0) / 1000)
        return {"clients": len(self.clients[request["name"]])}

    def do_hammer(self, request):
        hammer = Hammer(self, request)
        self.runs[request["id"]] = hammer
        try:
            return hammer.answer()
        finally:
            del self.runs[request["id"]]

    def do_close(self, request):
        for client in self.clients.pop(request["name"]):
            client.close()
        return {}

    def do_stats(self, request):
        name = request["name"]
        return stats(self.references[name], len(self.clients[name]))

    def serve(self, request):
        answer = {"id": request.get("id"), "ok": True}
        try:
            answer.update(getattr(self, "do_" + request["do"])(request))
        except Exception as error:
            answer.update(ok=False, error="%s: %s" % (type(error).__name__, error))
        write(answer)


def kill(control):
    """Ends the server's operations that this process holds."""
    mine = {"command.comment": "%s-%d" % (HOLD, os.getpid())}
    for operation in control.admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": mine}]):
        control.admin.command("killOp", op=operation["opid"])


def main():
    agent = Agent()
    write({"event": "started", "driver": "pymongo", "version": pymongo.version, "pid": os.getpid()})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "exit":
            write({"id": request.get("id"), "ok": True})
            break
        threading.Thread(target=agent.serve, args=(request,), daemon=True).start()
    # Without the drivers' own goodbyes, as an application that is stopped.
    os._exit(0)


if __name__ == "__main__":
    main()
