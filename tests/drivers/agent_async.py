"""The asynchronous client of PyMongo 4 behind the protocol of README.md."""

import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict

import bson
import pymongo
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo.cursor import CursorType
from pymongo.write_concern import WriteConcern

from agent import (
    FAILURES_PRINTED, HOLD, Reference, collection_of, command_reply, document, every_type, failed, sleep_command, stats,
    write,
)


async def ping(client, args, number):
    await client.admin.command("ping")
    return {}


async def insert(client, args, number):
    made = document(args, number)
    await collection_of(client, args).insert_one(made)
    return {"inserted": 1, "_id": str(made["_id"])}


async def insert_w0(client, args, number):
    unacknowledged = collection_of(client, args).with_options(write_concern=WriteConcern(w=0))
    await unacknowledged.insert_one(document(args, number))
    return {}


async def insert_many(client, args, number):
    many = [document({"bytes": args.get("bytes", 0)}, index) for index in range(args.get("documents", 3))]
    return {"inserted": len((await collection_of(client, args).insert_many(many)).inserted_ids)}


async def find(client, args, number, cursor_type=CursorType.NON_TAILABLE):
    cursor = collection_of(client, args).find({}, limit=args.get("limit", 0), cursor_type=cursor_type)
    documents = padding = 0
    async for found in cursor.batch_size(args.get("batch", 0)):
        documents += 1
        padding += len(found.get("padding", ""))
    return {"documents": documents, "bytes": padding}


async def exhaust(client, args, number):
    return await find(client, args, number, CursorType.EXHAUST)


async def bulk(client, args, number):
    writes = [pymongo.InsertOne({"bulk": number, "n": index}) for index in range(args.get("documents", 100))]
    writes.append(pymongo.UpdateMany({"bulk": number}, {"$set": {"seen": True}}))
    writes.append(pymongo.DeleteMany({"bulk": number}))
    result = await collection_of(client, args).bulk_write(writes)
    return {"inserted": result.inserted_count, "updated": result.modified_count, "deleted": result.deleted_count}


async def aggregate(client, args, number):
    pipeline = [{"$group": {"_id": {"$mod": [{"$ifNull": ["$n", 0]}, 7]}}}]
    groups = await collection_of(client, args).aggregate(pipeline)
    return {"groups": len(await groups.to_list())}


async def crud(client, args, number):
    collection = collection_of(client, args)
    key = bson.ObjectId()
    assert (await collection.insert_one({"_id": key, "n": number})).inserted_id == key
    assert await collection.find_one({"_id": key}) == {"_id": key, "n": number}
    assert (await collection.update_one({"_id": key}, {"$inc": {"n": 1}})).modified_count == 1
    assert (await collection.find_one_and_replace({"_id": key}, {"n": -1}))["n"] == number + 1
    assert await collection.count_documents({"_id": key, "n": -1}) == 1
    assert (await collection.delete_one({"_id": key})).deleted_count == 1
    assert await collection.find_one({"_id": key}) is None
    return {"checked": 7}


async def types(client, args, number):
    values = every_type()
    plain = CodecOptions(uuid_representation=UuidRepresentation.UNSPECIFIED)
    collection = collection_of(client, args).with_options(codec_options=plain)
    key = (await collection.insert_one(dict(values))).inserted_id
    found = await collection.find_one({"_id": key})
    await collection.delete_one({"_id": key})
    del found["_id"]
    return {"equal": found == values, "types": len(values)}


async def transaction(client, args, number):
    collection = collection_of(client, args)
    async with client.start_session() as session:
        async with await session.start_transaction():
            await collection.insert_one({"transaction": number, "n": 1}, session=session)
            await collection.insert_one({"transaction": number, "n": 2}, session=session)
    return {"committed": True}


async def sleep(client, args, number):
    await client.admin.command(sleep_command(args))
    return {}


async def drop(client, args, number):
    await collection_of(client, args).drop()
    return {}


async def create_capped(client, args, number):
    collection = collection_of(client, args)
    await collection.drop()
    await client[collection.database.name].create_collection(collection.name, capped=True, size=1 << 20)
    await collection.insert_one({"first": True})
    return {}


async def command(client, args, number):
    return command_reply(await client[args.get("on", "admin")].command(bson.SON(args["command"])))


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        ping, insert, insert_w0, insert_many, find, exhaust, bulk, aggregate, crud, types, transaction, sleep, drop,
        create_capped, command,
    )
}


class Agent:
    def __init__(self):
        self.clients = defaultdict(list)
        self.references = defaultdict(list)
        self.stopped = set()
        self.cursors = {}
        self.held = defaultdict(list)

    def client(self, request):
        return self.clients[request["name"]][-1]

    async def do_open(self, request):
        name = request["name"]
        reference = Reference(name, request.get("events", False))
        client = pymongo.AsyncMongoClient(request["uri"], event_listeners=[reference], **request.get("options", {}))
        self.references[name].append(reference)
        self.clients[name].append(client)
        return {}

    async def do_run(self, request):
        client, operation = self.client(request), OPERATIONS[request["operation"]]
        args, count, seconds = request.get("args", {}), request.get("count", 1), request.get("seconds")
        begin = time.monotonic()
        answer = {"done": 0, "failed": 0, "errors": Counter(), "result": None}
        acknowledged, started = [], 0

        async def work():
            nonlocal started
            while request["id"] not in self.stopped:
                if time.monotonic() >= begin + seconds if seconds is not None else started >= count:
                    return
                started += 1
                if request.get("pause") and started > request.get("concurrency", 1):
                    await asyncio.sleep(request["pause"] / 1000)
                try:
                    answer["result"] = await operation(client, args, started)
                except Exception as error:
                    message = "%s: %s" % (type(error).__name__, str(error)[:200])
                    answer["failed"] += 1
                    answer["errors"][message] += 1
                    if answer["failed"] <= FAILURES_PRINTED:
                        failed(request["name"], message)
                    await asyncio.sleep(0)
                    continue
                answer["done"] += 1
                if args.get("list"):
                    acknowledged.append(answer["result"]["_id"])

        await asyncio.gather(*(work() for _ in range(request.get("concurrency", 1))))
        answer["seconds"] = time.monotonic() - begin
        if args.get("list"):
            answer["acknowledged"] = acknowledged
        return answer

    async def do_stop(self, request):
        self.stopped.add(request["run"])
        return {}

    async def do_hold(self, request):
        name, concurrency = request["name"], request["concurrency"]
        client, reference = self.client(request), self.references[name][-1]
        args = {"milliseconds": request.get("milliseconds", 600000), "comment": "%s-%d" % (HOLD, os.getpid())}
        wanted = reference.sleeping + concurrency
        held = [asyncio.create_task(sleep(client, args, number)) for number in range(concurrency)]
        self.held[name] += held
        while reference.sleeping < wanted:
            for operation in held:
                if operation.done():
                    operation.result()
            await asyncio.sleep(0.005)
        return {}

    async def do_release(self, request):
        held = self.held.pop(request["name"], [])
        if "control" in request:
            mine = {"command.comment": "%s-%d" % (HOLD, os.getpid())}
            async with pymongo.AsyncMongoClient(request["control"], directConnection=True) as control:
                while not all(operation.done() for operation in held):
                    running = await control.admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": mine}])
                    async for operation in running:
                        await control.admin.command("killOp", op=operation["opid"])
                    await asyncio.sleep(0.01)
        await asyncio.gather(*held, return_exceptions=True)
        return {"held": len(held)}

    async def do_cursor_open(self, request):
        args = request.get("args", {})
        collection = collection_of(self.client(request), args)
        kind = request["kind"]
        if kind == "watch":
            cursor = await collection.watch(max_await_time_ms=200)
        elif kind == "tailable":
            cursor = collection.find({}, cursor_type=CursorType.TAILABLE_AWAIT).max_await_time_ms(200)
        elif kind == "exhaust":
            cursor = collection.find({}, cursor_type=CursorType.EXHAUST).batch_size(args.get("batch", 2))
        else:
            cursor = collection.find({}).batch_size(args.get("batch", 2))
        self.cursors[request["cursor"]] = (kind, cursor)
        return {}

    async def do_cursor_next(self, request):
        kind, cursor = self.cursors[request["cursor"]]
        wanted = request.get("count", 1)
        deadline = time.monotonic() + request.get("milliseconds", 10000) / 1000
        documents = 0
        while documents < wanted and time.monotonic() < deadline:
            if kind == "watch":
                documents += await cursor.try_next() is not None
                continue
            try:
                await cursor.next()
                documents += 1
            except StopAsyncIteration:
                if kind != "tailable" or not cursor.alive:
                    break
        return {"documents": documents}

    async def do_cursor_close(self, request):
        await self.cursors.pop(request["cursor"])[1].close()
        return {}

    async def do_per_request(self, request):
        operation = OPERATIONS[request.get("operation", "find")]
        for number in range(request["count"]):
            await self.do_open(request)
            await operation(self.client(request), request.get("args", {}), number)
            if request.get("close"):
                await self.do_close(request)
            await asyncio.sleep(request.get("pause", 0) / 1000)
        return {"clients": len(self.clients[request["name"]])}

    async def do_close(self, request):
        for client in self.clients.pop(request["name"]):
            await client.close()
        return {}

    async def do_stats(self, request):
        name = request["name"]
        return stats(self.references[name], len(self.clients[name]))

    async def serve(self, request):
        answer = {"id": request.get("id"), "ok": True}
        try:
            answer.update(await getattr(self, "do_" + request["do"])(request))
        except Exception as error:
            answer.update(ok=False, error="%s: %s" % (type(error).__name__, error))
        write(answer)


async def main():
    agent = Agent()
    write({"event": "started", "driver": "pymongo-async", "version": pymongo.version, "pid": os.getpid()})
    loop, tasks = asyncio.get_running_loop(), set()
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        request = json.loads(line)
        if request["do"] == "exit":
            write({"id": request.get("id"), "ok": True})
            break
        task = asyncio.create_task(agent.serve(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    # Without the driver's own goodbyes, as an application that is stopped.
    os._exit(0)


asyncio.run(main())
