//! The binary. Exit codes: 0 when all went well, 1 when something failed at run time, 2 when the command line or
//! the configuration is mistaken.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use poolscope::cli::{Cli, Failure};

const RUNTIME: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Nobody is left to tell when the terminal is gone.
            message.print().ok();
            return if message.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let (code, message) = match cli.run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Runtime(error)) => (RUNTIME, format!("{error:#}")),
        Err(Failure::Usage(error)) => (USAGE, format!("{error:#}")),
    };
    writeln!(std::io::stderr(), "poolscope: {message}").ok();
    code.into()
}
