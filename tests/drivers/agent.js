// The Node drivers 3.6, 4, 6 and 7 behind the protocol of README.md:
//   node agent.js mongodb-3.6 legacy|unified     node agent.js mongodb-7
'use strict';

const readline = require('readline');

const [driverName, topology] = process.argv.slice(2);
const mongodb = require(driverName);
const { version } = require(`${driverName}/package.json`);
const major = parseInt(version, 10);
const legacy = major === 3 && topology === 'legacy';
// Failures that one `run` prints one by one; all of them are counted.
const FAILURES_PRINTED = 300;
// What has not called back for so long, in milliseconds, never will: no operation here takes as long.
const HANGING = 2500;
const HOLD = `poolscope-hold-${process.pid}`;

const write = line => process.stdout.write(JSON.stringify(line) + '\n');
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const bump = (counts, key) => { counts[key] = (counts[key] || 0) + 1; };

function check(condition, what) {
  if (!condition) throw new Error(`unexpected answer of ${what}`);
}

// What the driver's events say about one client.
class Reference {
  constructor(client, name, stream) {
    Object.assign(this, { created: 0, ready: 0, closed: {}, checkedOut: 0, checkoutFailed: {}, cleared: 0, sleeping: 0 });
    this.heartbeats = { started: 0, succeeded: 0, failed: 0 };
    this.open = new Set();
    const key = event => `${event.address} ${event.connectionId}`;
    const saw = (event, details) => {
      if (stream) write({ event, name, at: Date.now() / 1000, ...details });
    };
    const on = (event, handler) => client.on(event, handler);
    on('connectionCreated', event => {
      this.open.add(key(event));
      this.created++;
      saw('created', { connection: event.connectionId });
    });
    on('connectionReady', event => { this.ready++; saw('ready', { connection: event.connectionId }); });
    on('connectionClosed', event => {
      if (!this.open.delete(key(event))) return;
      bump(this.closed, event.reason);
      saw('closed', { connection: event.connectionId, reason: event.reason });
    });
    on('connectionCheckOutFailed', event => {
      bump(this.checkoutFailed, event.reason);
      saw('checkout_failed', { reason: event.reason });
    });
    on('connectionCheckedOut', () => { this.checkedOut++; });
    on('connectionCheckedIn', () => { this.checkedOut--; });
    on('connectionPoolCreated', () => saw('pool_created'));
    on('connectionPoolReady', () => saw('pool_ready'));
    on('connectionPoolClosed', () => saw('pool_closed'));
    on('connectionPoolCleared', () => { this.cleared++; saw('pool_cleared'); });
    on('serverHeartbeatStarted', () => { this.heartbeats.started++; });
    on('serverHeartbeatSucceeded', () => { this.heartbeats.succeeded++; });
    on('serverHeartbeatFailed', event => {
      this.heartbeats.failed++;
      saw('heartbeat_failed', { error: String(event.failure) });
    });
    on('commandStarted', event => { if (event.commandName === 'sleep') this.sleeping++; });
  }
}

// Node 3.6 closes the connection that carried endSessions without saying so.
function closeUnreported(reference) {
  if (reference.open.size) {
    reference.closed.unreported = (reference.closed.unreported || 0) + reference.open.size;
    reference.open.clear();
  }
  reference.checkedOut = 0;
}

// The sockets of the legacy topology, as its own server objects list them.
function legacySockets(client) {
  const top = client.topology || (client.s && client.s.topology);
  if (!top) return 0;
  const core = top.s && top.s.coreTopology ? top.s.coreTopology : top;
  return core.connections ? core.connections().length : 0;
}

const collectionOf = (client, args) =>
  client.db(args.database || 'poolscope').collection(args.collection || 'items');

function makeDocument(args, number) {
  const made = { n: number, from: 'node' };
  if (args.prefix !== undefined) made._id = `${args.prefix}-${number}`;
  if (args.bytes) made.padding = 'x'.repeat(args.bytes);
  return made;
}

async function drain(cursor) {
  const result = { documents: 0, bytes: 0 };
  for await (const found of cursor) {
    result.documents++;
    result.bytes += (found.padding || '').length;
  }
  return result;
}

const operations = {
  async ping(client) {
    await client.db('admin').command({ ping: 1 });
    return {};
  },
  async insert(client, args, number) {
    const result = await collectionOf(client, args).insertOne(makeDocument(args, number));
    return { inserted: 1, _id: String(result.insertedId) };
  },
  async insert_w0(client, args, number) {
    const options = major === 3 ? { w: 0 } : { writeConcern: { w: 0 } };
    await collectionOf(client, args).insertOne(makeDocument(args, number), options);
    return {};
  },
  async insert_many(client, args) {
    const many = Array.from({ length: args.documents || 3 }, (_, index) => makeDocument({ bytes: args.bytes }, index));
    const result = await collectionOf(client, args).insertMany(many);
    return { inserted: result.insertedCount };
  },
  async find(client, args, number, options = {}) {
    const find = { ...options };
    if (args.limit) find.limit = args.limit;
    if (args.batch) find.batchSize = args.batch;
    return drain(collectionOf(client, args).find({}, find));
  },
  async exhaust(client, args, number) {
    throw new Error('not supported by this driver');
  },
  async bulk(client, args, number) {
    const writes = Array.from({ length: args.documents || 100 }, (_, index) => (
      { insertOne: { document: { bulk: number, n: index } } }
    ));
    writes.push({ updateMany: { filter: { bulk: number }, update: { $set: { seen: true } } } });
    writes.push({ deleteMany: { filter: { bulk: number } } });
    const result = await collectionOf(client, args).bulkWrite(writes);
    return { inserted: result.insertedCount, updated: result.modifiedCount, deleted: result.deletedCount };
  },
  async aggregate(client, args) {
    const pipeline = [{ $group: { _id: { $mod: [{ $ifNull: ['$n', 0] }, 7] } } }];
    return { groups: (await collectionOf(client, args).aggregate(pipeline).toArray()).length };
  },
  async crud(client, args, number) {
    const collection = collectionOf(client, args);
    const _id = new mongodb.ObjectId();
    check((await collection.insertOne({ _id, n: number })).insertedId.equals(_id), 'insert');
    check((await collection.findOne({ _id })).n === number, 'find');
    check((await collection.updateOne({ _id }, { $inc: { n: 1 } })).modifiedCount === 1, 'update');
    const before = await collection.findOneAndReplace({ _id }, { n: -1 });
    check((before.value || before).n === number + 1, 'replace');
    check((await collection.countDocuments({ _id, n: -1 })) === 1, 'count');
    check((await collection.deleteOne({ _id })).deletedCount === 1, 'delete');
    check((await collection.findOne({ _id })) === null, 'the last find');
    return { checked: 7 };
  },
  async types(client, args) {
    const make = (Type, ...values) => (major === 3 && Type.prototype === undefined ? Type(...values) : new Type(...values));
    const values = {
      double: make(mongodb.Double, 1.5),
      string: 'text with \u00e9 and \u4e2d',
      document: { a: { b: make(mongodb.Int32, 1) } },
      array: ['one', null, true],
      binary: make(mongodb.Binary, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), 128),
      object_id: make(mongodb.ObjectId),
      boolean: true,
      date: new Date('2020-02-29T12:30:15.123Z'),
      null: null,
      regex: make(mongodb.BSONRegExp, '^a.*b$', 'ix'),
      reference: make(mongodb.DBRef, 'items', make(mongodb.ObjectId)),
      symbol: make(mongodb.BSONSymbol || mongodb.Symbol, 'symbol'),
      code: make(mongodb.Code, 'function() { return 1; }'),
      code_with_scope: make(mongodb.Code, 'function() { return x; }', { x: make(mongodb.Int32, 1) }),
      int32: make(mongodb.Int32, 7),
      timestamp: mongodb.Timestamp.fromBits(2, 1600000000),
      int64: mongodb.Long.fromString('1099511627776'),
      decimal: mongodb.Decimal128.fromString('1.5E+10'),
      min_key: make(mongodb.MinKey),
      max_key: make(mongodb.MaxKey),
    };
    // Compared as what it would be as BSON again, since decoded values have other classes than made ones.
    const collection = collectionOf(client, args);
    const options = { promoteValues: false, bsonRegExp: true };
    const { insertedId } = await collection.insertOne({ ...values });
    const found = await collection.findOne({ _id: insertedId }, options);
    await collection.deleteOne({ _id: insertedId });
    delete found._id;
    const print = value => JSON.stringify(value, (_, inner) => (Buffer.isBuffer(inner) ? inner.toString('hex') : inner));
    const plain = value => JSON.parse(print(value));
    const different = Object.keys(values).filter(key => print(plain(values[key])) !== print(plain(found[key])));
    return { equal: different.length === 0, types: Object.keys(found).length, different };
  },
  async transaction(client, args, number) {
    const collection = collectionOf(client, args);
    const session = client.startSession();
    session.startTransaction();
    await collection.insertOne({ transaction: number, n: 1 }, { session });
    await collection.insertOne({ transaction: number, n: 2 }, { session });
    await session.commitTransaction();
    await session.endSession();
    return { committed: true };
  },
  async sleep(client, args) {
    const command = { sleep: 1, millis: args.milliseconds === undefined ? 1000 : args.milliseconds, lock: 'none' };
    if (args.comment) command.comment = args.comment;
    await client.db('admin').command(command);
    return {};
  },
  async drop(client, args) {
    await collectionOf(client, args).drop().catch(error => { if (error.code !== 26) throw error; });
    return {};
  },
  async create_capped(client, args) {
    await operations.drop(client, args);
    const collection = collectionOf(client, args);
    await client.db(args.database || 'poolscope')
      .createCollection(collection.collectionName, { capped: true, size: 1 << 20 });
    await collection.insertOne({ first: true });
    return {};
  },
  async command(client, args) {
    return client.db(args.on || 'admin').command(args.command);
  },
};

class Agent {
  constructor() {
    this.clients = new Map();
    this.references = new Map();
    this.runs = new Map();
    this.calls = new Set();
    this.cursors = new Map();
    this.held = new Map();
  }

  client({ name }) {
    const clients = this.clients.get(name);
    if (!clients || !clients.length) throw new Error(`no client is called ${name}`);
    return clients[clients.length - 1];
  }

  make(name, uri, given, events) {
    const options = { monitorCommands: true, ...given };
    if (major === 3) {
      options.useUnifiedTopology = !legacy;
      options.useNewUrlParser = true;
    }
    const client = new mongodb.MongoClient(uri, options);
    const reference = new Reference(client, name, events);
    this.references.set(name, [...(this.references.get(name) || []), reference]);
    return client;
  }

  async open(request) {
    const client = this.make(request.name, request.uri, request.options, request.events);
    this.clients.set(request.name, [...(this.clients.get(request.name) || []), client]);
    try {
      await client.connect();
    } catch (error) {
      // The driver has closed it.
      this.clients.set(request.name, this.clients.get(request.name).filter(other => other !== client));
      throw error;
    }
    return {};
  }

  async run({ id, name, operation, args = {}, count = 1, seconds, concurrency = 1, pause: between = 0 }) {
    const client = this.client({ name });
    const perform = operations[operation];
    if (!perform) throw new Error(`no operation is called ${operation}`);
    const run = { stopped: false };
    this.runs.set(id, run);
    const begin = Date.now();
    const answer = { done: 0, failed: 0, errors: {}, seconds: 0, result: null };
    if (args.list) answer.acknowledged = [];
    let started = 0;
    const more = () => !run.stopped && (seconds === undefined ? started < count : Date.now() - begin < seconds * 1000);
    const work = async () => {
      while (more()) {
        const number = ++started;
        if (between && number > concurrency) await pause(between);
        const call = { began: Date.now() };
        this.calls.add(call);
        try {
          answer.result = await perform(client, args, number);
          answer.done++;
          if (args.list) answer.acknowledged.push(answer.result._id);
        } catch (error) {
          answer.failed++;
          const message = `${error.name}: ${String(error.message).slice(0, 200)}`;
          bump(answer.errors, message);
          if (answer.failed <= FAILURES_PRINTED) write({ event: 'operation_failed', name, at: Date.now() / 1000, error: message });
          this.calls.delete(call);
          await pause(0);
        }
        this.calls.delete(call);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, work));
    this.runs.delete(id);
    answer.seconds = (Date.now() - begin) / 1000;
    return answer;
  }

  async stop({ run }) {
    if (this.runs.has(run)) this.runs.get(run).stopped = true;
    return {};
  }

  async hold({ name, concurrency, milliseconds = 600000 }) {
    const client = this.client({ name });
    const reference = this.references.get(name).slice(-1)[0];
    const wanted = reference.sleeping + concurrency;
    let failure = null;
    const held = Array.from({ length: concurrency }, () => operations.sleep(client, { milliseconds, comment: HOLD })
      .catch(error => { failure = error; }));
    this.held.set(name, [...(this.held.get(name) || []), ...held]);
    while (reference.sleeping < wanted) {
      if (failure) throw failure;
      await pause(5);
    }
    return {};
  }

  async release({ name, control }) {
    const held = this.held.get(name) || [];
    this.held.delete(name);
    const all = Promise.all(held);
    if (control) {
      let ended = false;
      all.then(() => { ended = true; });
      const options = major === 3 ? { useUnifiedTopology: true, useNewUrlParser: true } : {};
      const killer = await new mongodb.MongoClient(control, options).connect();
      const admin = killer.db('admin');
      while (!ended) {
        const { inprog } = await admin.command({ currentOp: true, 'command.comment': HOLD });
        for (const operation of inprog) await admin.command({ killOp: 1, op: operation.opid });
        await pause(10);
      }
      await killer.close();
    }
    await all;
    return { held: held.length };
  }

  async cursor_open({ name, cursor, kind, args = {} }) {
    const collection = collectionOf(this.client({ name }), args);
    let opened;
    if (kind === 'watch') {
      opened = collection.watch([], { maxAwaitTimeMS: 200 });
      // The cursor is opened by the first look: without it, changes made from here on would be missed.
      const first = opened.hasNext();
      first.catch(() => {});
      await Promise.race([first, pause(400)]);
      this.cursors.set(cursor, { kind, cursor: opened, first });
      return {};
    }
    if (kind === 'exhaust') return operations.exhaust();
    const options = kind === 'tailable' ? { tailable: true, awaitData: true, maxAwaitTimeMS: 200 } : { batchSize: args.batch || 2 };
    this.cursors.set(cursor, { kind, cursor: collection.find({}, options) });
    return {};
  }

  async cursor_next({ cursor, count = 1, milliseconds = 10000 }) {
    const opened = this.cursors.get(cursor);
    const deadline = Date.now() + milliseconds;
    let documents = 0;
    while (documents < count) {
      const left = deadline - Date.now();
      if (left <= 0) break;
      const look = opened.first || opened.cursor.hasNext();
      const found = await Promise.race([look, pause(left).then(() => undefined)]);
      if (found === undefined) {
        opened.first = look;
        break;
      }
      opened.first = null;
      if (!found) {
        if (opened.kind === 'find') break;
        continue;
      }
      await opened.cursor.next();
      documents++;
    }
    return { documents };
  }

  async cursor_close({ cursor }) {
    await this.cursors.get(cursor).cursor.close();
    this.cursors.delete(cursor);
    return {};
  }

  async per_request(request) {
    const perform = operations[request.operation || 'find'];
    for (let number = 0; number < request.count; number++) {
      await this.open(request);
      await perform(this.client(request), request.args || {}, number);
      if (request.close) await this.close(request);
      if (request.pause) await pause(request.pause);
    }
    return { clients: (this.clients.get(request.name) || []).length };
  }

  // Workers of which each makes a client, uses it until that fails, and makes another at once.
  async hammer(request) {
    const { id, name, concurrency = 1 } = request;
    const run = { stopped: false };
    this.runs.set(id, run);
    const answer = { clients: 0, failed: 0 };
    const work = async () => {
      while (!run.stopped) {
        answer.clients++;
        try {
          await this.useUntilItFails(request, run);
        } catch (error) {
          answer.failed++;
          const message = `${error.name}: ${String(error.message).slice(0, 200)}`;
          if (answer.failed <= FAILURES_PRINTED) write({ event: 'operation_failed', name, at: Date.now() / 1000, error: message });
          await pause(0);
        }
      }
    };
    await Promise.all(Array.from({ length: concurrency }, work));
    this.runs.delete(id);
    return answer;
  }

  async useUntilItFails({ name, uri, events, operation = 'find', args = {}, pause: between = 0 }, run) {
    const client = this.make(name, uri, {}, events);
    try {
      await client.connect();
      for (let number = 0; !run.stopped; number++) {
        await operations[operation](client, args, number);
        await pause(between);
      }
    } finally {
      await client.close().catch(() => {});
    }
  }

  async close({ name, force = false, later = false }) {
    if (later) await null;
    const clients = this.clients.get(name) || [];
    this.clients.delete(name);
    await Promise.all(clients.map(client => client.close(force)));
    if (major === 3) (this.references.get(name) || []).forEach(closeUnreported);
    return {};
  }

  async stats({ name }) {
    const clients = this.clients.get(name) || [];
    if (legacy) {
      const open = clients.map(legacySockets).reduce((sum, sockets) => sum + sockets, 0);
      const hanging = [...this.calls].filter(call => Date.now() - call.began > HANGING).length;
      return { source: 'internal', clients: clients.length, open, checked_out: null, hanging };
    }
    const total = { source: 'cmap', clients: clients.length, created: 0, ready: 0, closed: {}, open: 0 };
    Object.assign(total, { checked_out: 0, checkout_failed: {}, cleared: 0 });
    total.heartbeats = { started: 0, succeeded: 0, failed: 0 };
    const add = (into, from) => Object.keys(from).forEach(key => { into[key] = (into[key] || 0) + from[key]; });
    for (const reference of this.references.get(name) || []) {
      total.created += reference.created;
      total.ready += reference.ready;
      total.checked_out += reference.checkedOut;
      total.cleared += reference.cleared;
      total.open += reference.open.size;
      add(total.closed, reference.closed);
      add(total.checkout_failed, reference.checkoutFailed);
      add(total.heartbeats, reference.heartbeats);
    }
    return total;
  }

  async exit() {
    return {};
  }
}

const agent = new Agent();
const verbs = new Set(Object.getOwnPropertyNames(Agent.prototype).filter(verb => !['constructor', 'client', 'make', 'useUntilItFails'].includes(verb)));

async function serve(request) {
  try {
    if (!verbs.has(request.do)) throw new Error(`nothing is called ${request.do}`);
    write({ id: request.id, ok: true, ...(await agent[request.do](request)) });
  } catch (error) {
    write({ id: request.id, ok: false, error: `${error.name}: ${error.message}` });
  }
  if (request.do === 'exit') process.exit(0);
}

// The legacy driver reports what it lost to nobody; the process must live on, as services with a handler do.
const tell = event => error => write({ event, error: String(error), at: Date.now() / 1000 });
process.on('unhandledRejection', tell('unhandled_rejection'));
// A socket of the legacy pool that breaks while it authenticates is nobody's: its error has no listener.
process.on('uncaughtException', tell('uncaught_exception'));
readline.createInterface({ input: process.stdin }).on('line', line => serve(JSON.parse(line))).on('close', () => process.exit(0));
write({ event: 'started', driver: driverName, version, pid: process.pid });
