//! Mongo clients and what their pools go through, against the drivers' own events.
//!
//! What the observer infers is read from the journal, which holds everything it was told, so that figures can be
//! compared that no row of the API shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use poolscope::journal::{Reader, Replay};
use poolscope::pools::{MongoClient, Pools};
use serde_json::{Value, json};

use crate::support::{Agent, Driver, Mongod, Poolscope, eventually};

/// A round-trip monitor of Node opens after a heartbeat and speaks after another; the rest is for busy machines.
const LIMIT: Duration = Duration::from_mins(1);

/// A server, the proxy before it, and what the proxy writes down.
struct Stage {
    server: Mongod,
    poolscope: Poolscope,
    directory: PathBuf,
}

impl Stage {
    fn set(name: &str) -> Self {
        let server = Mongod::standalone();
        let directory =
            std::env::temp_dir().join(format!("poolscope-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let journal = directory.join("journal");
        let poolscope = Poolscope::start_with(
            &[server.addr()],
            &["--journal.path", journal.to_str().unwrap()],
        );
        Self {
            server,
            poolscope,
            directory,
        }
    }

    fn uri(&self, app: &str, options: &str) -> String {
        format!(
            "{}&heartbeatFrequencyMS=1000{options}",
            self.poolscope.uri(app)
        )
    }

    /// The application has one mongo client, its monitors are known as far as it has any, and nothing was cleared.
    #[track_caller]
    fn await_one_client(&self, app: &str, driver: Driver) {
        eventually(LIMIT, || {
            self.look(|pools| {
                let clients = open_clients(pools, app);
                let [client] = clients[..] else {
                    return Err(format!("{app}: {} clients", clients.len()));
                };
                let is_calm = client.pools.values().all(|pool| pool.clears.is_empty());
                assert!(is_calm, "{app}: {:#?}", client.pools);
                if client.monitors.is_empty() == driver.has_cmap() {
                    return Err(format!("{app}: monitors {:?}", client.monitors));
                }
                Ok(())
            })
        });
    }

    /// What is inferred from all that is written.
    fn look<T>(&self, see: impl FnOnce(&Pools) -> T) -> T {
        let mut replay = Replay::default();
        let mut files = files_in(&self.directory);
        files.sort();
        for file in files {
            replay.read(&mut Reader::open(&file).unwrap()).unwrap();
        }
        see(replay.observer().unwrap().pools())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::env::var_os("POOLSCOPE_KEEP").is_none() {
            drop(std::fs::remove_dir_all(&self.directory));
        }
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// The mongo clients of an application that are open.
fn open_clients<'a>(pools: &'a Pools, app: &str) -> Vec<&'a MongoClient> {
    let instances: Vec<_> = pools
        .instances()
        .filter(|instance| *instance.app == *app)
        .map(|instance| instance.id)
        .collect();
    pools
        .mongo_clients()
        .filter(|client| client.is_open() && instances.contains(&client.instance))
        .collect()
}

/// Sizes of their pools, the smallest first.
fn sizes(pools: &Pools, app: &str) -> Vec<u64> {
    let clients = open_clients(pools, app);
    let mut sizes: Vec<u64> = clients
        .iter()
        .map(|client| client.pooled_open().try_into().unwrap())
        .collect();
    sizes.sort_unstable();
    sizes
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {value}"))
}

/// Sizes of pools as drivers say, the smallest first.
fn said<'a>(agents: impl IntoIterator<Item = (&'a mut Agent, Vec<&'static str>)>) -> Vec<u64> {
    let mut sizes = Vec::new();
    for (agent, names) in agents {
        for name in names {
            sizes.push(number(&agent.stats(name)["open"]));
        }
    }
    sizes.sort_unstable();
    sizes
}

fn with_all(scene: impl Fn(Driver) + Sync) {
    let scene = &scene;
    std::thread::scope(|scope| {
        for driver in Driver::ABLE {
            scope.spawn(move || scene(driver));
        }
    });
}

fn run(agent: &mut Agent, name: &str, count: u64, concurrency: u64) {
    let answer = agent.request(json!({
        "do": "run", "name": name, "operation": "find", "count": count, "concurrency": concurrency,
    }));
    assert_eq!(answer["done"], count, "{name}: {answer}");
}

#[test]
fn clients_behind_one_address_with_equal_metadata_are_told_apart() {
    let stage = Stage::set("clients");
    with_all(|driver| {
        let app = format!("{}-several", driver.label());
        let uri = stage.uri(&app, "");
        let mut one = Agent::spawn(driver);
        let mut other = Agent::spawn(driver);
        for (name, concurrency) in [("a", 1), ("b", 3), ("c", 5)] {
            one.open(name, &uri);
            run(&mut one, name, 100, concurrency);
        }
        for (name, concurrency) in [("a", 2), ("b", 4)] {
            other.open(name, &uri);
            run(&mut other, name, 100, concurrency);
        }
        let agree = |one: &mut Agent, other: &mut Agent, names: [&[&'static str]; 2]| {
            eventually(LIMIT, || {
                let said = said([
                    (&mut *one, names[0].to_vec()),
                    (&mut *other, names[1].to_vec()),
                ]);
                let seen = stage.look(|pools| sizes(pools, &app));
                // Without monitors nothing tells for certain whose a connection is that kept its first session.
                let is_equal = if driver.has_cmap() {
                    said == seen
                } else {
                    said.len() == seen.len() && said.iter().sum::<u64>() == seen.iter().sum::<u64>()
                };
                if is_equal {
                    Ok(())
                } else {
                    Err(format!("{app}: said {said:?}, seen {seen:?}"))
                }
            });
        };
        agree(&mut one, &mut other, [&["a", "b", "c"], &["a", "b"]]);
        one.close("b");
        agree(&mut one, &mut other, [&["a", "c"], &["a", "b"]]);
        other.process().kill();
        eventually(LIMIT, || {
            match stage.look(|pools| open_clients(pools, &app).len()) {
                2 => Ok(()),
                count => Err(format!("{app}: {count} clients after one process is gone")),
            }
        });
    });
}

#[test]
fn an_outage_is_one_episode_and_the_clients_stay() {
    let mut stage = Stage::set("outage");
    let mut agents: Vec<(Driver, String, Agent)> = Driver::ABLE
        .into_iter()
        .map(|driver| {
            let app = format!("{}-outage", driver.label());
            let mut agent = Agent::spawn(driver);
            agent.open("a", &stage.uri(&app, "&serverSelectionTimeoutMS=20000"));
            run(&mut agent, "a", 40, 4);
            (driver, app, agent)
        })
        .collect();
    for (driver, app, _) in &agents {
        stage.await_one_client(app, *driver);
    }
    stage.server.kill();
    // The outage is the subject: every driver has noticed it by then, and has dialled in vain.
    std::thread::sleep(Duration::from_secs(3));
    stage.server.restart();
    for (driver, app, agent) in &mut agents {
        eventually(LIMIT, || {
            let answer = agent.request(json!({
                "do": "run", "name": "a", "operation": "find", "count": 8, "concurrency": 2,
            }));
            if answer["done"] == 8 {
                Ok(())
            } else {
                Err(format!("{app}: {answer}"))
            }
        });
        eventually(LIMIT, || {
            let stats = agent.stats("a");
            let (clients, clears, open, ready) = stage.look(|pools| {
                let clients = open_clients(pools, app);
                let clears: Vec<_> = clients
                    .iter()
                    .flat_map(|client| client.pools.values().flat_map(|pool| pool.clears.clone()))
                    .collect();
                let open: usize = clients.iter().map(|client| client.pooled_open()).sum();
                let ready = clears.iter().all(|clear| clear.ready_at.is_some());
                (clients.len(), clears, open, ready)
            });
            let cleared = stats["cleared"].as_u64().unwrap_or(0);
            let episodes = u64::from(cleared > 0);
            let is_equal = clients == 1
                && number(&stats["open"]) == open as u64
                && clears.len() as u64 == episodes
                && ready;
            if is_equal {
                Ok(())
            } else {
                Err(format!(
                    "{app} {driver:?}: {stats}; {clients} clients, {open} open, {clears:#?}"
                ))
            }
        });
    }
}

#[test]
fn leaked_clients_and_those_that_come_and_go_are_counted_each() {
    let stage = Stage::set("leak");
    let drivers = [
        Driver::PyMongo4,
        Driver::Node6,
        Driver::Rust,
        Driver::Node36Legacy,
    ];
    std::thread::scope(|scope| {
        for driver in drivers {
            let stage = &stage;
            scope.spawn(move || {
                let app = format!("{}-leak", driver.label());
                let uri = stage.uri(&app, "");
                let mut agent = Agent::spawn(driver);
                // A client that stays, so that those that go are not all there is.
                agent.open("lasting", &uri);
                run(&mut agent, "lasting", 40, 2);
                for _ in 0..5 {
                    agent.open("brief", &uri);
                    run(&mut agent, "brief", 2, 1);
                    agent.close("brief");
                }
                let count = || stage.look(|pools| open_clients(pools, &app).len());
                eventually(LIMIT, || match count() {
                    1 => Ok(()),
                    count => Err(format!("{app}: {count} clients, one of them lasting")),
                });
                if driver.has_cmap() {
                    agent.request(json!({
                        "do": "per_request", "name": "leaked", "uri": uri, "options": {}, "count": 20,
                    }));
                    let clients = number(&agent.stats("leaked")["clients"]);
                    assert_eq!(clients, 20, "{app}");
                    eventually(LIMIT, || match count() {
                        21 => Ok(()),
                        count => Err(format!("{app}: {count} clients, 20 of them leaked")),
                    });
                }
                stage.look(|pools| {
                    for client in open_clients(pools, &app) {
                        let clears = client.pools.values().flat_map(|pool| &pool.clears);
                        assert_eq!(clears.count(), 0, "{app}");
                    }
                });
            });
        }
    });
}

#[test]
fn a_freeze_is_an_episode_only_for_those_who_gave_up() {
    let stage = Stage::set("freeze");
    let drivers = [
        Driver::PyMongo4,
        Driver::Node36Unified,
        Driver::Node6,
        Driver::Node7,
    ];
    let mut agents = Vec::new();
    for driver in drivers {
        let mut agent = Agent::spawn(driver);
        for (name, options) in [
            ("patient", ""),
            ("tight", "&connectTimeoutMS=1500&socketTimeoutMS=2000"),
        ] {
            let app = format!("{}-{name}", driver.label());
            agent.open(name, &stage.uri(&app, options));
            run(&mut agent, name, 20, 2);
        }
        agents.push((driver, agent));
    }
    for (driver, _) in &agents {
        for name in ["patient", "tight"] {
            stage.await_one_client(&format!("{}-{name}", driver.label()), *driver);
        }
    }
    stage.server.freeze();
    // The freeze is the subject: longer than the tight time-outs, shorter than the others.
    std::thread::sleep(Duration::from_secs(6));
    stage.server.thaw();
    for (driver, agent) in &mut agents {
        for name in ["patient", "tight"] {
            let app = format!("{}-{name}", driver.label());
            eventually(LIMIT, || {
                let cleared = agent.stats(name)["cleared"].as_u64().unwrap_or(0);
                let (clients, clears) = stage.look(|pools| {
                    let clients = open_clients(pools, &app);
                    let pools = clients.iter().flat_map(|client| client.pools.values());
                    let clears: Vec<_> = pools.flat_map(|pool| pool.clears.clone()).collect();
                    (clients.len(), clears)
                });
                let is_equal = clients == 1 && clears.len() as u64 == u64::from(cleared > 0);
                if is_equal && clears.iter().all(|clear| clear.ready_at.is_some()) {
                    Ok(())
                } else {
                    Err(format!(
                        "{app}: {clients} clients, {cleared} events, {clears:#?}"
                    ))
                }
            });
        }
    }
}
