//! One source of configuration, as far as it was given: texts with the place each came from.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{ADVERTISED, CONFIG_ENV, KEYS, LISTEN, NAME, UPSTREAM};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file, with line and column counted from 1.
    File {
        /// The path as it was given.
        path: String,
        /// The line.
        line: u64,
        /// The column.
        column: u64,
    },
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag, without its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A text and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What one source says of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListenerSettings {
    pub(super) origin: Origin,
    pub(super) listen: Option<Setting>,
    pub(super) upstream: Option<Setting>,
    pub(super) name: Option<Setting>,
    pub(super) advertised: Vec<Setting>,
}

/// One source: the file, the environment or the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Values by the path of their key; those of listeners are below.
    pub(super) settings: BTreeMap<&'static str, Setting>,
    /// Listeners in order.
    pub(super) listeners: Vec<ListenerSettings>,
}

impl Layer {
    /// What the environment says. The second part names variables that begin like ours and are none: most
    /// likely a slip of the pen, so the user should hear of them, but perhaps somebody else's.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Vec<String>) {
        let variables: BTreeMap<String, String> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with("POOLSCOPE_"))
            .collect();
        let unknown = variables
            .keys()
            .filter(|name| !is_known(name) && !is_of_kubernetes(name))
            .cloned()
            .collect();
        let layer = Self::from_values(
            Origin::Environment,
            |env, _| {
                let text = variables.get(env)?;
                // An empty variable is how many tools say "not set".
                (!text.is_empty()).then(|| vec![text.clone()])
            },
            true,
        );
        (layer, unknown)
    }

    /// What the command line says: `values` gives the texts of a flag, in order, when it was used.
    pub fn from_flags(values: impl Fn(&str) -> Option<Vec<String>>) -> Self {
        Self::from_values(Origin::Flag, |_, flag| values(flag), false)
    }

    fn from_values(
        origin: fn(&'static str) -> Origin,
        values: impl Fn(&'static str, &'static str) -> Option<Vec<String>>,
        is_environment: bool,
    ) -> Self {
        let mut layer = Self::default();
        for key in KEYS {
            let Some(texts) = values(key.env, key.flag) else {
                continue;
            };
            let origin = origin(if is_environment { key.env } else { key.flag });
            if !key.is_of_listener() {
                if let Some(text) = texts.into_iter().next_back() {
                    layer.settings.insert(key.path, Setting { text, origin });
                }
                continue;
            }
            let texts: Vec<String> = if is_environment {
                texts
                    .iter()
                    .flat_map(|text| text.split_whitespace())
                    .map(str::to_owned)
                    .collect()
            } else {
                texts
            };
            for (position, text) in texts.into_iter().enumerate() {
                layer
                    .listener_at(position, &origin)
                    .set(key.path, text, &origin);
            }
        }
        layer
    }

    fn listener_at(&mut self, position: usize, origin: &Origin) -> &mut ListenerSettings {
        if position >= self.listeners.len() {
            self.listeners
                .resize_with(position + 1, || ListenerSettings::empty(origin.clone()));
        }
        &mut self.listeners[position]
    }
}

impl ListenerSettings {
    pub(super) fn empty(origin: Origin) -> Self {
        Self {
            origin,
            listen: None,
            upstream: None,
            name: None,
            advertised: Vec::new(),
        }
    }

    fn set(&mut self, path: &str, text: String, origin: &Origin) {
        let setting = |text| Setting {
            text,
            origin: origin.clone(),
        };
        if path == LISTEN.path {
            self.listen = Some(setting(text));
        } else if path == UPSTREAM.path {
            self.upstream = Some(setting(text));
        } else if path == NAME.path {
            self.name = Some(setting(text));
        } else if path == ADVERTISED.path {
            self.advertised = text
                .split(',')
                .map(|name| setting(name.to_owned()))
                .collect();
        }
    }
}

fn is_known(name: &str) -> bool {
    name == CONFIG_ENV || name == "POOLSCOPE_ADDRESS" || KEYS.iter().any(|key| key.env == name)
}

/// Kubernetes gives every container the addresses of the services of its namespace: a service called `poolscope`
/// makes `POOLSCOPE_SERVICE_HOST`, `POOLSCOPE_PORT_9604_TCP_ADDR` and more.
/// Source: Kubernetes documentation, "Service" § Environment variables.
fn is_of_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || {
        name.rsplit_once("_PORT").is_some_and(|(_, rest)| {
            rest.is_empty() || rest.strip_prefix('_').is_some_and(starts_with_digit)
        }) || name.split("_PORT_").skip(1).any(starts_with_digit)
    }
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_are_not_slips() {
        let names = [
            "POOLSCOPE_SERVICE_HOST",
            "POOLSCOPE_SERVICE_PORT_METRICS",
            "POOLSCOPE_PORT",
            "POOLSCOPE_PORT_9604_TCP_ADDR",
            "POOLSCOPE_METRICS_PORT_9604_TCP_PROTO",
            "POOLSCOPE_CONECT_TIMEOUT",
            "POOLSCOPE_KEEPALIVE",
            "PATH",
        ];
        let (layer, unknown) =
            Layer::from_environment(names.map(|name| (name.to_owned(), "1m".to_owned())));
        assert_eq!(unknown, ["POOLSCOPE_CONECT_TIMEOUT"]);
        assert_eq!(layer.settings.len(), 1);
    }

    #[test]
    fn listeners_of_the_environment_are_separated_by_spaces() {
        let (layer, _) = Layer::from_environment(
            [
                ("POOLSCOPE_LISTEN", "127.0.0.1:1  127.0.0.1:2"),
                ("POOLSCOPE_UPSTREAM", "a:1 b:2"),
                ("POOLSCOPE_ADVERTISED", "x:1,y:1"),
                ("POOLSCOPE_WORKERS", ""),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let texts: Vec<_> = layer
            .listeners
            .iter()
            .map(|listener| {
                let text = |setting: &Option<Setting>| setting.as_ref().unwrap().text.clone();
                (
                    text(&listener.listen),
                    text(&listener.upstream),
                    listener.advertised.len(),
                )
            })
            .collect();
        assert_eq!(
            texts,
            [
                ("127.0.0.1:1".to_owned(), "a:1".to_owned(), 2),
                ("127.0.0.1:2".to_owned(), "b:2".to_owned(), 0)
            ]
        );
        assert!(layer.settings.is_empty());
    }
}
