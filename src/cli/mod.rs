//! The command line: runs the proxy, checks its configuration, and shows what a running one knows.
//!
//! Everything but `serve` and `config check` asks a running instance over HTTP and knows no more than the API.

mod analyze;
mod check;
mod client;
mod flags;
mod follow;
mod format;
mod incidents;
mod pools;
mod replay;
mod show;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock::Clock;
use crate::config::{ConfigError, LogFormat};
use crate::{app, telemetry};
use client::Instance;
use flags::ConfigFlags;

/// Shortest pause of `--watch`.
const WATCH_MIN: f64 = 0.2;

/// A transparent proxy before MongoDB that tells who holds which connections, in what state, and why they break
#[derive(Debug, Parser)]
#[command(name = "poolscope", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward connections and watch them
    Serve(ConfigFlags),
    /// Work on the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show who holds which connections
    Clients {
        #[command(flatten)]
        asking: Asking,
        /// Only this application, address or app@address
        #[arg(long)]
        client: Option<String>,
        /// Only this upstream
        #[arg(long)]
        upstream: Option<String>,
        /// A row a MongoClient object instead: its pool, as inferred, and when that was cleared
        #[arg(long)]
        pools: bool,
    },
    /// Show open connections, oldest first
    Connections {
        #[command(flatten)]
        asking: Asking,
        /// Only those of this application, address or app@address
        #[arg(long)]
        client: Option<String>,
        /// Only those in this state: active, idle, monitoring and so on
        #[arg(long)]
        state: Option<String>,
        /// Only those used for this: application, monitor, tool and so on
        #[arg(long)]
        role: Option<String>,
        /// Only those to this upstream
        #[arg(long)]
        upstream: Option<String>,
        /// How many to show at most
        #[arg(long)]
        limit: Option<String>,
    },
    /// Show the servers behind the listeners
    Upstreams {
        #[command(flatten)]
        asking: Asking,
    },
    /// Show what packet captures (pcap, pcapng) hold, parts of one capture in any order; asks no running instance
    Analyze {
        /// Files that tcpdump, dumpcap or Wireshark wrote
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Look only at connections to this server; may be repeated; found out when absent
        #[arg(long = "server", value_name = "HOST:PORT")]
        servers: Vec<String>,
        /// A table for people, or JSON
        #[arg(long, default_value = "table")]
        output: Output,
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Show the incidents that journals hold; asks no running instance
    Replay {
        /// A journal.path, which means its older parts FILE.1, FILE.2, …, too; one of these parts; or a directory with
        /// journals
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// A table for people, or the answer of /api/v1/incidents
        #[arg(long, default_value = "table")]
        output: Output,
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Show what goes wrong and why; healthy changes are among it as info
    Incidents {
        #[command(flatten)]
        asking: Asking,
        /// Show those that are over as well
        #[arg(long)]
        all: bool,
        /// Stay, and show news as they come
        #[arg(long, conflicts_with = "watch")]
        follow: bool,
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Explain an incident: its course, evidence, what was ruled out, what to do
    Explain {
        #[command(flatten)]
        asking: Asking,
        /// Its number, as `poolscope incidents` shows it
        id: u64,
        /// The same as --output json
        #[arg(long)]
        json: bool,
    },
    /// Show the running instance itself: listeners, limits, warnings
    Status {
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration, print what is in force and what the limits allow; starts nothing
    Check(ConfigFlags),
}

/// Whom to ask, and how to show the answer.
#[derive(Debug, Args)]
struct Asking {
    /// Web address of the running instance
    #[arg(
        long,
        env = "POOLSCOPE_ADDRESS",
        default_value = "127.0.0.1:9604",
        value_name = "HOST:PORT"
    )]
    address: String,
    /// A table for people, or the answer of the API as it is
    #[arg(long, default_value = "table")]
    output: Output,
    /// Show it again and again, this many seconds apart
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Why a command ended without success; the exit codes are said in `main.rs`.
#[derive(Debug)]
pub enum Failure {
    /// Something failed at run time.
    Runtime(anyhow::Error),
    /// The command line or the configuration is mistaken.
    Usage(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let lines: Vec<String> = error
            .problems()
            .iter()
            .map(|problem| format!("\n  {}: {}", problem.place, problem.reason))
            .collect();
        Self::Usage(anyhow::anyhow!(
            "the configuration is refused:{}",
            lines.concat()
        ))
    }
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<(), Failure> {
        table::set_width(table::terminal_width());
        match self.command {
            Command::Serve(flags) => serve(flags),
            Command::Config {
                command: ConfigCommand::Check(flags),
            } => {
                let loaded = flags.load()?;
                print(&check::report(&loaded))?;
                Ok(())
            }
            Command::Clients {
                asking,
                client,
                upstream,
                pools,
            } => asking.show_clients(&[("client", client), ("upstream", upstream)], pools),
            Command::Connections {
                asking,
                client,
                state,
                role,
                upstream,
                limit,
            } => {
                let filters = [
                    ("client", client),
                    ("state", state),
                    ("role", role),
                    ("upstream", upstream),
                    ("limit", limit),
                ];
                asking.show(&[client::path("connections", &filters)], |[answer]| {
                    Ok(show::connections(&client::decode(answer)?))
                })
            }
            Command::Upstreams { asking } => asking
                .show(&[client::path("upstreams", &[])], |[answer]| {
                    Ok(show::upstreams(&client::decode(answer)?))
                }),
            Command::Analyze {
                files,
                servers,
                output,
                json,
            } => {
                let servers = analyze::resolve(&servers).map_err(Failure::Usage)?;
                let output = if json { Output::Json } else { output };
                print(&analyze::analyze(&files, &servers, output)?)?;
                Ok(())
            }
            Command::Replay {
                files,
                output,
                json,
            } => {
                let output = if json { Output::Json } else { output };
                let warn = |warning: &str| {
                    // Where even that cannot be written, the answer still can.
                    writeln!(io::stderr(), "poolscope: {warning}").ok();
                };
                print(&replay::replay(&files, output, warn)?)?;
                Ok(())
            }
            Command::Incidents {
                mut asking,
                all,
                follow,
                json,
            } => {
                asking.prefer_json(json);
                if follow {
                    return Ok(asking.follow()?);
                }
                let open = (!all).then(|| "true".to_owned());
                let paths = [client::path("incidents", &[("open", open)])];
                asking.show(&paths, |[answer]| {
                    Ok(incidents::table(&client::decode(answer)?))
                })
            }
            Command::Explain {
                mut asking,
                id,
                json,
            } => {
                asking.prefer_json(json);
                let paths = [client::path(&format!("incidents/{id}"), &[])];
                asking.show(&paths, |[answer]| {
                    let answer: crate::admin::api::OneIncident = client::decode(answer)?;
                    Ok(incidents::explain(&answer.incident))
                })
            }
            Command::Status { asking } => asking
                .show(&[client::path("status", &[])], |[answer]| {
                    Ok(show::status(&client::decode(answer)?))
                }),
        }
    }
}

fn serve(flags: ConfigFlags) -> Result<(), Failure> {
    let loaded = flags.load()?;
    let form = match loaded.config.log.format {
        LogFormat::Human => telemetry::Form::Human,
        LogFormat::Json => telemetry::Form::Json,
    };
    let clock = Clock::start();
    telemetry::init(&loaded.config.log.filter, form, move || clock.now())
        .context("cannot set up logging")?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(app::serve(loaded.config, loaded.warnings)?)
}

impl Asking {
    fn prefer_json(&mut self, is_wanted: bool) {
        if is_wanted {
            self.output = Output::Json;
        }
    }

    /// Shows client instances, or their mongo clients.
    fn show_clients(
        self,
        filters: &[(&str, Option<String>)],
        with_pools: bool,
    ) -> Result<(), Failure> {
        let clients = client::path("clients", filters);
        if with_pools {
            return self.show(&[clients], |[answer]| {
                Ok(pools::pools(&client::decode(answer)?))
            });
        }
        let paths = [clients, client::path("upstreams", &[])];
        self.show(&paths, |[clients, upstreams]| {
            Ok(show::clients(
                &client::decode(clients)?,
                &client::decode(upstreams)?,
            ))
        })
    }

    /// Shows events until its reader has gone.
    fn follow(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        runtime.block_on(follow::follow(&self.address, |event| {
            if event.name == "lagged" {
                // Beside the news, so that whoever reads them as JSON is not disturbed.
                let note = "news were missed; `poolscope incidents --all` shows what happened\n";
                io::stderr().write_all(note.as_bytes()).ok();
            }
            if !event.name.starts_with("incident_") {
                return Ok(true);
            }
            if self.output == Output::Json {
                return print(&format!("{}\n", event.data));
            }
            let row = client::decode(event.data.as_bytes())?;
            print(&incidents::news(&event.name, &row))
        }))
    }

    /// Asks for `paths`, shows the answers as a table, or the first of them as it is; again and again if wanted.
    fn show<const N: usize>(
        self,
        paths: &[String; N],
        table: impl Fn([&[u8]; N]) -> anyhow::Result<String>,
    ) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        let instance = Instance::at(&self.address);
        let once = || -> anyhow::Result<String> {
            // Whoever watches may make the window wider meanwhile.
            table::set_width(table::terminal_width());
            let answers = runtime.block_on(instance.get_all(paths))?;
            match self.output {
                Output::Table => table(answers.each_ref().map(Vec::as_slice)),
                Output::Json => Ok(answers
                    .first()
                    .map(|answer| String::from_utf8_lossy(answer).into_owned())
                    .unwrap_or_default()),
            }
        };
        let Some(pause) = self.watch else {
            print(&once()?)?;
            return Ok(());
        };
        // Mistakes are told at once; later an instance that is restarted must not end the watch.
        let mut shown = once()?;
        let is_screen = self.output == Output::Table && io::stdout().is_terminal();
        loop {
            let clear = if is_screen { "\u{1b}[H\u{1b}[2J" } else { "" };
            let space = if is_screen || self.output == Output::Json {
                ""
            } else {
                "\n"
            };
            if !print(&format!("{clear}{shown}{space}"))? {
                return Ok(());
            }
            // A timer can only be made inside the runtime.
            runtime.block_on(async { tokio::time::sleep(pause).await });
            shown = once().unwrap_or_else(|error| format!("{error:#}\n"));
        }
    }
}

/// Writes to the standard output; false when its reader has gone, which is how `| head` ends a program.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to the standard output"),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds >= WATCH_MIN)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("give a number of seconds, at least {WATCH_MIN}"))
}

#[cfg(test)]
mod tests;
