//! Many processes of applications, as far as a proxy can tell: each with an address of its own, a real driver's
//! handshakes, a streaming and a round-trip monitor, a pool whose connections carry sessions, and an end.
//!
//! Once a second a line of JSON tells how it goes. It starts gently, lives through `--secs` with connections and
//! instances that come and go, and then only works on, until it is killed, so that everything can be counted.

mod instance;
mod line;
pub mod member;
mod recorded;

use crate::histogram::Histogram;
use crate::messages::{self, Doc};
use instance::{Addresses, Awaits, Held, Instance, Kind};
use line::{Line, READ_MAX};
use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use recorded::{Driver, HEARTBEAT_MS};
use socket2::{Domain, Socket, Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS as u64);

/// A process that was told to stop answers what is under way.
const LAST_WORK: Duration = Duration::from_millis(200);

/// Its successor needs a moment to start.
const RESTART: Duration = Duration::from_secs(1);

/// The loop looks at the time at least this often: work is handed out in portions of it.
const TURN: Duration = Duration::from_millis(2);

/// Operations that may be late before they are left out.
const BACKLOG_SECS: f64 = 0.5;

pub struct Plan {
    pub target: SocketAddr,
    pub instances: usize,
    /// Of all instances, monitors included.
    pub conns: usize,
    pub ops_per_sec: f64,
    pub start_secs: f64,
    pub secs: f64,
    /// Pooled connections closed and opened anew, each second.
    pub replaced_per_sec: f64,
    /// Instances that end and begin anew elsewhere, each second.
    pub rollouts_per_sec: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Start(usize),
    /// The second monitor of drivers that open it a heartbeat later.
    MeasureLater(usize, u64),
    Measure(usize),
    Replace,
    Rollout,
    SayGoodbye(usize),
    Tell,
}

#[derive(Default)]
struct Counts {
    ops: u64,
    errors: u64,
    replaced: u64,
    rollouts: u64,
    /// Connections that ended without having been asked to, and replies to other requests.
    broken: u64,
    /// Operations left out because no connection was free in time.
    skipped: u64,
}

struct Fleet {
    plan: Plan,
    drivers: Vec<Driver>,
    hello: Vec<u8>,
    poll: Poll,
    held: Vec<Option<Held>>,
    free: Vec<usize>,
    instances: Vec<Option<Instance>>,
    addresses: Addresses,
    lives: u64,
    tasks: BinaryHeap<Reverse<(Instant, Task)>>,
    /// Where the search for a free connection goes on.
    turn: usize,
    draws: u64,
    counts: Counts,
    latency: Histogram,
    began: Instant,
}

pub fn run(plan: Plan) -> io::Result<()> {
    let began = Instant::now();
    let hello = Doc::new().i32("hello", 1).str("$db", "admin").finish();
    let mut fleet = Fleet {
        drivers: recorded::drivers(),
        hello: messages::op_msg(&hello, None),
        poll: Poll::new()?,
        held: Vec::new(),
        free: Vec::new(),
        instances: (0..plan.instances).map(|_| None).collect(),
        addresses: Addresses::of(plan.instances),
        lives: 0,
        tasks: BinaryHeap::new(),
        turn: 0,
        draws: 0x9e37_79b9_7f4a_7c15,
        counts: Counts::default(),
        latency: Histogram::new(),
        began,
        plan,
    };
    for index in 0..fleet.plan.instances {
        let share = index as f64 / fleet.plan.instances as f64;
        let at = began + Duration::from_secs_f64(fleet.plan.start_secs * share);
        fleet.tasks.push(Reverse((at, Task::Start(index))));
    }
    let started = began + Duration::from_secs_f64(fleet.plan.start_secs) + HEARTBEAT;
    for task in [Task::Replace, Task::Rollout] {
        fleet.tasks.push(Reverse((started, task)));
    }
    fleet.tasks.push(Reverse((began, Task::Tell)));
    fleet.live()
}

impl Fleet {
    fn live(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_MAX];
        let mut due = 0.0;
        let mut worked_at = Instant::now();
        loop {
            match self.poll.poll(&mut events, Some(TURN)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                self.read(event.token().0, &mut buffer)?;
            }
            let now = Instant::now();
            while let Some(Reverse((at, task))) = self.tasks.peek().copied()
                && at <= now
            {
                self.tasks.pop();
                self.perform(task, at)?;
            }
            // As many as there are instances to do them, while they start.
            let started = self.instances.iter().flatten().count() as f64;
            let rate = self.plan.ops_per_sec * started / self.plan.instances as f64;
            due += rate * (now - worked_at).as_secs_f64();
            worked_at = now;
            while due >= 1.0 && self.operate()? {
                due -= 1.0;
            }
            let most = self.plan.ops_per_sec * BACKLOG_SECS;
            if due > most {
                self.counts.skipped += (due - most) as u64;
                due = most;
            }
        }
    }

    fn perform(&mut self, task: Task, at: Instant) -> io::Result<()> {
        match task {
            Task::Start(index) => self.start(index)?,
            Task::MeasureLater(index, life) => {
                let is_same = self.instances[index].as_ref().map(|one| one.life) == Some(life);
                if is_same {
                    self.open(index, Kind::RoundTrip)?;
                }
            }
            Task::Measure(slot) => self.measure(slot, at)?,
            Task::Replace if !self.is_calm() => {
                self.again(task, at, self.plan.replaced_per_sec);
                self.replace()?;
            }
            Task::Rollout if !self.is_calm() => {
                self.again(task, at, self.plan.rollouts_per_sec);
                self.leave();
            }
            Task::Replace | Task::Rollout => {}
            Task::SayGoodbye(index) => self.say_goodbye(index)?,
            Task::Tell => {
                self.again(task, at, 1.0);
                self.tell();
            }
        }
        Ok(())
    }

    fn again(&mut self, task: Task, at: Instant, per_sec: f64) {
        if per_sec > 0.0 {
            let next = at + Duration::from_secs_f64(1.0 / per_sec);
            self.tasks.push(Reverse((next, task)));
        }
    }

    fn is_calm(&self) -> bool {
        self.began.elapsed().as_secs_f64() >= self.plan.start_secs + self.plan.secs
    }

    // --- instances ---

    fn start(&mut self, index: usize) -> io::Result<()> {
        self.lives += 1;
        let life = self.lives;
        let sessions = [0; 4].map(|_: u8| {
            let (high, low) = (self.draw(), self.draw());
            ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
        });
        let first_request = (self.draw() % 1_000) as i32;
        self.instances[index] = Some(Instance {
            address: self.addresses.take(),
            driver: index % self.drivers.len(),
            life,
            sessions,
            last_request: first_request,
            slots: Vec::new(),
            is_leaving: false,
        });
        self.open(index, Kind::Monitor)
    }

    /// The monitor got its first answer.
    fn discovered(&mut self, index: usize) -> io::Result<()> {
        let pooled = self.plan.conns / self.plan.instances - 2;
        let Some(instance) = &self.instances[index] else {
            return Ok(());
        };
        if self.drivers[instance.driver].measures_later {
            let task = Task::MeasureLater(index, instance.life);
            self.tasks.push(Reverse((Instant::now() + HEARTBEAT, task)));
        } else {
            self.open(index, Kind::RoundTrip)?;
        }
        for _ in 0..pooled {
            self.open(index, Kind::Pooled)?;
        }
        Ok(())
    }

    fn leave(&mut self) {
        let index = self.draw() as usize % self.instances.len();
        // One that is still starting is left alone.
        let complete = self.plan.conns / self.plan.instances;
        if let Some(instance) = &mut self.instances[index]
            && !instance.is_leaving
            && instance.slots.len() == complete
        {
            instance.is_leaving = true;
            let at = Instant::now() + LAST_WORK;
            self.tasks.push(Reverse((at, Task::SayGoodbye(index))));
        }
    }

    fn say_goodbye(&mut self, index: usize) -> io::Result<()> {
        let Some(instance) = &self.instances[index] else {
            return Ok(());
        };
        let idle = instance.slots.iter().copied().find(|slot| {
            let held = self.held[*slot].as_ref();
            held.is_some_and(|held| held.kind == Kind::Pooled && held.awaits == Awaits::Nothing)
        });
        let Some(slot) = idle else {
            let at = Instant::now() + LAST_WORK;
            self.tasks.push(Reverse((at, Task::SayGoodbye(index))));
            return Ok(());
        };
        let template = &self.drivers[instance.driver].end_sessions;
        let request = recorded::with_session(template.clone(), &instance.sessions[0]);
        self.send(slot, &request, Awaits::Goodbye)
    }

    fn gone(&mut self, index: usize) {
        if let Some(instance) = self.instances[index].take() {
            for slot in instance.slots {
                self.held[slot] = None;
                self.free.push(slot);
            }
            self.addresses.give_back(instance.address);
            self.counts.rollouts += 1;
            let at = Instant::now() + RESTART;
            self.tasks.push(Reverse((at, Task::Start(index))));
        }
    }

    // --- connections ---

    fn open(&mut self, index: usize, kind: Kind) -> io::Result<()> {
        let Some(instance) = &mut self.instances[index] else {
            return Ok(());
        };
        let slot = self.free.pop().unwrap_or(self.held.len());
        if slot == self.held.len() {
            self.held.push(None);
        }
        instance.slots.push(slot);
        let stream = connect(self.plan.target, instance.address)?;
        let line = Line::new(stream, self.poll.registry(), Token(slot))?;
        let driver = &self.drivers[instance.driver];
        let hello = match kind {
            Kind::Monitor => &driver.monitor_hello,
            Kind::RoundTrip => &driver.round_trip_hello,
            Kind::Pooled => &driver.pooled_hello,
        };
        let hello = recorded::with_app(hello.clone(), index / 20);
        self.held[slot] = Some(Held {
            line,
            kind,
            instance: index,
            awaits: Awaits::Nothing,
            request_id: 0,
            sent_at: Instant::now(),
        });
        self.send(slot, &hello, Awaits::Hello)
    }

    fn close(&mut self, slot: usize) {
        if let Some(held) = self.held[slot].take()
            && let Some(instance) = &mut self.instances[held.instance]
        {
            instance.slots.retain(|one| *one != slot);
            self.free.push(slot);
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        if let Some(slot) = self.idle_slot(self.draws as usize)
            && let Some(held) = &self.held[slot]
        {
            let index = held.instance;
            self.close(slot);
            self.counts.replaced += 1;
            self.open(index, Kind::Pooled)?;
        }
        Ok(())
    }

    fn send(&mut self, slot: usize, template: &[u8], awaits: Awaits) -> io::Result<()> {
        let drawn = self.draw();
        let Some(held) = &mut self.held[slot] else {
            return Ok(());
        };
        let Some(instance) = &mut self.instances[held.instance] else {
            return Ok(());
        };
        held.request_id = if self.drivers[instance.driver].counts_requests {
            instance.last_request = instance.last_request.wrapping_add(1) & i32::MAX;
            instance.last_request
        } else {
            drawn as i32 & i32::MAX
        };
        held.awaits = awaits;
        held.sent_at = Instant::now();
        let message = recorded::with_ids(template, held.request_id, 0);
        if let Err(error) = held.line.send(&message) {
            self.broke(slot, &error.to_string())?;
        }
        Ok(())
    }

    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(held) = &mut self.held[slot] else {
            return Ok(());
        };
        let mut replies = Vec::new();
        let goes_on = held.line.read(buffer, |head| {
            let answers = i32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
            replies.push((answers, is_error(head)));
        });
        for (answers, is_error) in replies {
            self.replied(slot, answers, is_error)?;
        }
        match goes_on {
            Ok(true) => Ok(()),
            Ok(false) => self.broke(slot, "closed by the peer"),
            Err(error) => self.broke(slot, &error.to_string()),
        }
    }

    fn replied(&mut self, slot: usize, answers: i32, is_error: bool) -> io::Result<()> {
        let Some(held) = &mut self.held[slot] else {
            return Ok(());
        };
        if held.awaits != Awaits::Stream && held.request_id != answers {
            return self.broke(slot, "a reply to something else");
        }
        let (index, kind) = (held.instance, held.kind);
        match std::mem::replace(&mut held.awaits, Awaits::Nothing) {
            // Every reply of a stream announces the next.
            Awaits::Stream => held.awaits = Awaits::Stream,
            Awaits::Reply => {
                self.latency.add(held.sent_at.elapsed().as_nanos() as u64);
                self.counts.ops += 1;
                self.counts.errors += u64::from(is_error);
            }
            Awaits::Hello if kind == Kind::Monitor => {
                if let Some(instance) = &self.instances[index] {
                    let request = self.drivers[instance.driver].streaming.clone();
                    self.send(slot, &request, Awaits::Stream)?;
                    self.discovered(index)?;
                }
            }
            Awaits::Hello | Awaits::Measured if kind == Kind::RoundTrip => {
                let at = Instant::now() + HEARTBEAT;
                self.tasks.push(Reverse((at, Task::Measure(slot))));
            }
            Awaits::Goodbye => self.gone(index),
            Awaits::Hello | Awaits::Measured => {}
            Awaits::Nothing => self.broke(slot, "a reply to nothing")?,
        }
        Ok(())
    }

    fn broke(&mut self, slot: usize, why: &str) -> io::Result<()> {
        self.counts.broken += 1;
        let Some(held) = &self.held[slot] else {
            return Ok(());
        };
        let (index, kind, awaits) = (held.instance, held.kind, held.awaits);
        eprintln!("{kind:?} connection of instance {index}, {awaits:?}: {why}");
        self.close(slot);
        if self.counts.broken > 1000 {
            return Err(io::Error::other("too much breaks"));
        }
        self.open(index, kind)
    }

    /// A plain hello on the second monitor, unless its slot is another's by now.
    fn measure(&mut self, slot: usize, at: Instant) -> io::Result<()> {
        let is_due = self.held[slot].as_ref().is_some_and(|held| {
            held.kind == Kind::RoundTrip
                && held.awaits == Awaits::Nothing
                && at.duration_since(held.sent_at) >= HEARTBEAT
        });
        if is_due {
            let hello = self.hello.clone();
            self.send(slot, &hello, Awaits::Measured)?;
        }
        Ok(())
    }

    // --- work ---

    /// False when no connection is free.
    fn operate(&mut self) -> io::Result<bool> {
        let Some(slot) = self.idle_slot(self.turn) else {
            return Ok(false);
        };
        self.turn = slot + 1;
        let drawn = self.draw() as usize;
        let index = self.held[slot].as_ref().map(|held| held.instance);
        if let Some(instance) = index.and_then(|index| self.instances[index].as_ref()) {
            let session = &instance.sessions[drawn % instance.sessions.len()];
            let template = self.drivers[instance.driver].find.clone();
            let request = recorded::with_session(template, session);
            self.send(slot, &request, Awaits::Reply)?;
        }
        Ok(true)
    }

    /// The first connection from `from` on, all round, that can take work.
    fn idle_slot(&self, from: usize) -> Option<usize> {
        let len = self.held.len();
        (0..len).map(|step| (from % len + step) % len).find(|slot| {
            self.held[*slot].as_ref().is_some_and(|held| {
                let instance = self.instances[held.instance].as_ref();
                held.kind == Kind::Pooled
                    && held.awaits == Awaits::Nothing
                    && instance.is_some_and(|instance| !instance.is_leaving)
            })
        })
    }

    fn draw(&mut self) -> u64 {
        self.draws ^= self.draws << 13;
        self.draws ^= self.draws >> 7;
        self.draws ^= self.draws << 17;
        self.draws
    }

    fn tell(&mut self) {
        let of = |kind| {
            let held = self.held.iter().flatten();
            held.filter(|held| held.kind == kind).count()
        };
        let counts = &self.counts;
        println!(
            "{{\"elapsed\":{:.1},\"is_calm\":{},\"instances\":{},\"monitors\":{},\"round_trip_monitors\":{},\
             \"pooled\":{},\"ops\":{},\"errors\":{},\"replaced\":{},\"rollouts\":{},\"broken\":{},\"skipped\":{},\
             \"latency_us\":{}}}",
            self.began.elapsed().as_secs_f64(),
            self.is_calm(),
            self.instances.iter().flatten().count(),
            of(Kind::Monitor),
            of(Kind::RoundTrip),
            of(Kind::Pooled),
            counts.ops,
            counts.errors,
            counts.replaced,
            counts.rollouts,
            counts.broken,
            counts.skipped,
            self.latency.json(),
        );
    }
}

fn connect(target: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&target.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// The reply begins with `ok: 0.0`, as those of our server do.
fn is_error(head: &[u8]) -> bool {
    head.get(25..37) == Some(b"\x01ok\0\0\0\0\0\0\0\0\0")
}
