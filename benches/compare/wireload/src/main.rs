//! wireload: load and servers in the MongoDB wire protocol, for measuring proxies that stand between them.
//!
//! The modes of a comparison, but for `canned` and `hello`, end by printing one JSON object. A wrong byte fails the
//! run. `fleet` and `member` play hundreds of applications and their server for as long as they are let.

mod bare;
mod canned;
mod connections;
mod exchanges;
mod fleet;
mod histogram;
mod messages;
mod usage;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;

const USAGE: &str = "usage: wireload MODE [--key value]...
  canned  --listen ADDR                      serve hello, ping, find r<BYTES> and insert w<BYTES> from a shelf
  bare    --listen ADDR --upstream ADDR      forward and nothing else, on --threads T (2)
  hello   --target ADDR                      one hello; succeeds when it is answered
  ping    --target ADDR --conns N            pings, one at a time on each connection
  find    --target ADDR --conns N --size B   finds whose reply has about B bytes
  insert  --target ADDR --conns N --size B   inserts of about B bytes
  connect --target ADDR --conns WORKERS      connect, hello, close
  idle    --target ADDR --conns N            hold N connections; all have to answer at the end
  member  --listen ADDR                      serve as a mongod would: streams of hellos, errors now and then
  fleet   --target ADDR --instances I --conns N --ops RATE --start S --replaced RATE --rollouts RATE
                                             I processes with N connections together, until killed; what comes
                                             and goes does so for S + --secs
further: --secs S (3)  --warmup S (0.5)  --pid PROXY  --server-pid SERVER";

/// What follows the mode.
struct Args(HashMap<String, String>);

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut values = HashMap::new();
        while let Some(word) = words.next() {
            let key = word.strip_prefix("--").map(str::to_owned);
            let (Some(key), Some(value)) = (key, words.next()) else {
                return Err(io::Error::other(format!(
                    "{word} is no --key with a value\n{USAGE}"
                )));
            };
            values.insert(key, value);
        }
        Ok(Self(values))
    }

    fn value<T: FromStr>(&self, key: &str) -> io::Result<Option<T>> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        let value = text
            .parse()
            .map_err(|_| io::Error::other(format!("--{key} cannot be {text}")))?;
        Ok(Some(value))
    }

    fn target(&self) -> io::Result<SocketAddr> {
        self.value("target")?
            .ok_or_else(|| io::Error::other("--target ADDRESS:PORT is needed"))
    }
}

fn run(mode: &str, args: &Args) -> io::Result<()> {
    let secs = args.value("secs")?.unwrap_or(3.0);
    let conns = args.value("conns")?.unwrap_or(1_usize);
    let size = args.value("size")?.unwrap_or(1024_usize);
    let (pid, server_pid) = (args.value("pid")?, args.value("server-pid")?);
    let request = match mode {
        "canned" => {
            let listen: String = args
                .value("listen")?
                .unwrap_or_else(|| "127.0.0.1:0".to_owned());
            return canned::run(&listen);
        }
        "bare" => {
            let named = |key: &str| {
                let missing = || io::Error::other(format!("--{key} ADDRESS:PORT is needed"));
                args.value(key)?.ok_or_else(missing)
            };
            let threads = args.value("threads")?.unwrap_or(2);
            return bare::run(named("listen")?, named("upstream")?, threads);
        }
        "member" => {
            let listen: String = args
                .value("listen")?
                .unwrap_or_else(|| "127.0.0.1:0".to_owned());
            return fleet::member::run(&listen);
        }
        "fleet" => {
            return fleet::run(fleet::Plan {
                target: args.target()?,
                instances: args.value("instances")?.unwrap_or(1),
                conns,
                ops_per_sec: args.value("ops")?.unwrap_or(1.0),
                start_secs: args.value("start")?.unwrap_or(0.0),
                secs,
                replaced_per_sec: args.value("replaced")?.unwrap_or(0.0),
                rollouts_per_sec: args.value("rollouts")?.unwrap_or(0.0),
            });
        }
        "hello" => {
            drop(exchanges::connect(args.target()?, 1)?);
            return Ok(());
        }
        "connect" => {
            println!(
                "{}",
                connections::connect_and_close(args.target()?, conns, secs, pid, server_pid)?
            );
            return Ok(());
        }
        "idle" => {
            println!("{}", connections::hold(args.target()?, conns, secs, pid)?);
            return Ok(());
        }
        "ping" => messages::ping_request(),
        "find" => messages::find_request(size),
        "insert" => messages::insert_request(size),
        _ => return Err(io::Error::other(USAGE)),
    };
    let load = exchanges::Load {
        mode: mode.to_owned(),
        target: args.target()?,
        conns,
        secs,
        warmup: args.value("warmup")?.unwrap_or(0.5),
        request,
        count_reply: mode != "insert",
        pid,
        server_pid,
    };
    println!("{}", exchanges::run(&load)?);
    Ok(())
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    match Args::parse(words).and_then(|args| run(&mode, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wireload {mode}: {error}");
            ExitCode::FAILURE
        }
    }
}
