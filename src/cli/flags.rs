//! The flags of the configuration, made from its table of keys so that none can be forgotten or named otherwise.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::{CONFIG_ENV, Config, ConfigError, KEYS, Layer, Loaded};

const PRECEDENCE: &str = "\
Sources, a later one wins: file, environment, flags. The names follow from each other: \
web.listen_address in the file is POOLSCOPE_WEB_LISTEN_ADDRESS and --web.listen-address. Listeners given by \
flags replace those of the environment, and those replace the file's; in the environment several are separated \
by spaces. Durations and sizes have their unit: 250ms, 5s, 1m30s, 2h, 7d; 512B, 16KiB, 1MiB.";

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(super) struct ConfigFlags {
    file: Option<PathBuf>,
    layer: Layer,
}

impl ConfigFlags {
    /// Loads and checks it.
    pub(super) fn load(self) -> Result<Loaded, ConfigError> {
        let file = self.file.or_else(|| {
            std::env::var_os(CONFIG_ENV)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
        // What is not Unicode is shown with replacement characters by whoever refuses it.
        let environment = std::env::vars_os().map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        });
        Config::load(file.as_deref(), environment, self.layer)
    }
}

impl clap::FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            file: matches.get_one::<PathBuf>("config").cloned(),
            layer: Layer::from_flags(|flag| {
                let values = matches.get_many::<String>(flag)?;
                Some(values.cloned().collect())
            }),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!("File to read [env: {CONFIG_ENV}]"));
        let flags = KEYS.iter().map(|key| {
            let default = key
                .default
                .map_or_else(String::new, |default| format!(" [default: {default}]"));
            let action = if key.is_of_listener() {
                ArgAction::Append
            } else {
                ArgAction::Set
            };
            Arg::new(key.flag)
                .long(key.flag)
                .value_name(key.value)
                .action(action)
                .help(format!("{}{default} [env: {}]", key.help, key.env))
        });
        command.arg(config).args(flags).after_help(PRECEDENCE)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
