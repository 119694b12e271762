//! Settings that cannot be used.

use std::fmt;

/// All settings that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsError(Vec<SettingError>);

impl SettingsError {
    /// Each of them. There is at least one.
    pub fn each(&self) -> impl Iterator<Item = &SettingError> {
        self.0.iter()
    }

    /// Both results, or all that is refused in either.
    pub fn both<A, B>(first: Result<A, Self>, second: Result<B, Self>) -> Result<(A, B), Self> {
        match (first, second) {
            (Ok(first), Ok(second)) => Ok((first, second)),
            (Err(SettingsError(first)), Err(SettingsError(second))) => Err(SettingsError([first, second].concat())),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// `value`, unless something is refused.
    pub(super) fn unless_empty<T>(refused: Vec<SettingError>, value: T) -> Result<T, Self> {
        match refused.is_empty() {
            true => Ok(value),
            false => Err(SettingsError(refused)),
        }
    }
}

impl From<SettingError> for SettingsError {
    fn from(error: SettingError) -> Self {
        SettingsError(vec![error])
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.each().map(SettingError::to_string).collect();
        f.write_str(&all.join("; "))
    }
}

/// A setting that cannot be used. Says which, where it stands, and what was expected, on one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingError {
    /// `config_json` is no JSON object.
    #[error("config_json of the host data: expected a JSON object of settings, {0}")]
    NotAnObject(String),
    /// A value has a JSON type that no setting has.
    #[error("setting {name} in config_json: expected a string, a number or a boolean, found {found}")]
    JsonType {
        /// The setting, as it was written.
        name: String,
        /// What stands there.
        found: &'static str,
    },
    /// A value that does not mean anything for this setting. Secrets are not shown.
    #[error("setting {name} in {origin}: expected {expected}, found {found}")]
    Value {
        /// The setting, as it was written.
        name: String,
        /// Where it stands.
        origin: Origin,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// A link says otherwise about the process than what is in force.
    #[error(
        "setting {0} in the link values: a link says nothing else about the provider than what is in force; set it in \
         config_json and start the provider again"
    )]
    OfProcess(String),
    /// A link that somebody has put asks for less than the provider does.
    #[error("setting ACK in the link values: expected no less than ACK in config_json asks for")]
    WeakerAck,
    /// A link that somebody has put may take more than the provider allows.
    #[error(
        "settings NAMESPACE_MAX_BYTES, NAMESPACE_MAX_KEYS and MAX_COLLECTION_ITEMS in the link values: expected no more \
         than config_json allows"
    )]
    WiderCaps,
}

/// Where a setting comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `config_json` of the host data.
    ConfigJson,
    /// The values of a link.
    Link,
    /// The environment of a process that this one lives in.
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::ConfigJson => "config_json",
            Origin::Link => "the link values",
            Origin::Environment => "the environment",
        })
    }
}
