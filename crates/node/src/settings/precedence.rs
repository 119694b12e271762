//! Whose word counts: what a link may set, beside what the host data has set for the process.

use super::error::{SettingError, SettingsError};
use super::raw::RawSettings;
use super::table::{self, Scope, CLIENT_JWT, CLIENT_SEED, NATS_CREDS, NATS_TOKEN, NATS_URL};
use super::Settings;

/// Settings that prove to a server who this is.
const CREDENTIALS: [&str; 4] = [CLIENT_JWT.name, CLIENT_SEED.name, NATS_CREDS.name, NATS_TOKEN.name];

impl RawSettings {
    /// These settings and those of the process that a link of the host data has, as in the classic provider.
    ///
    /// Such a link may set what `config_json` leaves open, not contradict it. It cannot switch off authentication, and
    /// no server it names is told the credentials of `config_json`: links of the host data were messages once, which
    /// nobody signs.
    pub fn completed_by(&self, link: &RawSettings) -> Result<Self, SettingsError> {
        let wanted = link.of_process();
        let contradicts =
            |name: &str| Settings::new(&self.overlaid_with(&wanted.only(name))).ok() != Settings::new(self).ok();
        let is_of_host = |name: &str| {
            table::find(name).is_some_and(|setting| matches!(setting.scope(), Scope::Host | Scope::Lattice))
        };
        let may_not = |name: &&String| (self.has(name) || is_of_host(name)) && contradicts(name);
        if let Some(names) = wanted.listed(wanted.names().filter(may_not)) {
            return Err(SettingError::OfProcess(names).into());
        }
        let has_credentials = CREDENTIALS.iter().any(|name| self.has(name));
        if wanted.is_set(&NATS_URL) && has_credentials && !self.is_set(&NATS_URL) {
            let error = SettingError::Together(
                "setting NATS_URL in the link values: the credentials of config_json go to no server that a link names; set \
                 both in config_json",
            );
            return Err(error.into());
        }
        let completed = self.overlaid_with(&wanted);
        Settings::new(&completed).map(|_| completed)
    }

    /// Whether a link says nothing about the process but what is in force.
    pub fn agree_with(&self, in_force: &RawSettings) -> Result<(), SettingsError> {
        let wanted = self.of_process();
        let config = Settings::new(in_force)?;
        if wanted.is_empty() || Settings::new(&in_force.overlaid_with(&wanted))? == config {
            return Ok(());
        }
        let differs = |name: &&String| {
            let with = Settings::new(&in_force.overlaid_with(&wanted.only(name)));
            with.ok().as_ref() != Some(&config)
        };
        let names = wanted.listed(wanted.names().filter(differs));
        let names = names.or_else(|| wanted.listed(wanted.names()));
        Err(SettingError::OfProcess(names.unwrap_or_default()).into())
    }

    /// Settings as they were written.
    fn listed<'a>(&self, names: impl Iterator<Item = &'a String>) -> Option<String> {
        let names: Vec<String> = names.map(|name| self.written(name)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}
