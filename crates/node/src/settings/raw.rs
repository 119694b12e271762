//! Settings as they were given, before they are read.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::error::{Origin, SettingError, SettingsError};
use super::kind::Kind;
use super::table::{self, Setting, SETTINGS};
use crate::secret::cleaned;

/// What variables of the environment begin with.
const ENVIRONMENT_PREFIX: &str = "KVCACHE_";

/// What was given for a setting.
#[derive(Clone, PartialEq, Eq)]
struct Given {
    /// The name as it was written.
    written: String,
    /// The text, or the JSON type that stands in its place.
    text: Result<String, &'static str>,
    origin: Origin,
}

/// Settings as they were given, by upper-case name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RawSettings(BTreeMap<String, Given>);

impl fmt::Debug for RawSettings {
    /// Names only: values can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl RawSettings {
    /// Reads `config_json`. None, an empty text and `null` mean no settings.
    pub fn from_json(text: Option<&str>) -> Result<Self, SettingsError> {
        let text = text.map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Ok(Self::default());
        }
        // The text itself is not repeated in errors: it can hold a seed.
        let no_object = |found| Err(SettingError::NotAnObject(found).into());
        let object = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(Value::Null) => return Ok(Self::default()),
            Ok(other) => return no_object(format!("found {}", json_type(&other))),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return no_object(format!("found invalid JSON at line {line} column {column}"));
            }
        };
        let mut settings = Self::default();
        for (name, value) in object {
            let text = match value {
                Value::String(text) => Ok(text),
                Value::Number(number) => Ok(number.to_string()),
                Value::Bool(on) => Ok(if on { "on" } else { "off" }.into()),
                Value::Null => continue,
                // Refused where a setting of this name is read. Other software has others.
                other => Err(json_type(&other)),
            };
            settings.insert(&name, &name, text, Origin::ConfigJson);
        }
        Ok(settings)
    }

    /// Reads the values of a link.
    pub fn from_link<'a>(values: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in values {
            settings.insert(name, name, Ok(value.clone()), Origin::Link);
        }
        settings
    }

    /// Reads variables of the environment, `KVCACHE_...`. Hosts take that prefix off; they are shown with it.
    pub fn from_environment<'a>(variables: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut settings = Self::default();
        for (variable, value) in variables {
            let has_prefix = |start: &str| start.eq_ignore_ascii_case(ENVIRONMENT_PREFIX);
            let (name, written) = match variable.split_at_checked(ENVIRONMENT_PREFIX.len()) {
                Some((start, name)) if has_prefix(start) => (name, variable.clone()),
                _ => (variable.as_str(), format!("{ENVIRONMENT_PREFIX}{variable}")),
            };
            settings.insert(name, &written, Ok(value.clone()), Origin::Environment);
        }
        settings
    }

    fn insert(&mut self, name: &str, written: &str, text: Result<String, &'static str>, origin: Origin) {
        // An empty value is what a template leaves of a setting that was not set.
        if !text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            let written = written.trim().to_owned();
            self.0
                .insert(name.trim().to_ascii_uppercase(), Given { written, text, origin });
        }
    }

    /// A setting as it was written, with the name it is documented by where that is another.
    pub(super) fn written(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Given { written, .. }) if !written.ends_with(name) => format!("{written} ({name})"),
            Some(Given { written, .. }) => written.clone(),
            None => name.into(),
        }
    }

    /// These settings, with those of `other` instead where both have one.
    pub fn overlaid_with(&self, other: &RawSettings) -> Self {
        let mut merged = self.clone();
        merged.0.extend(other.0.clone());
        merged
    }

    /// Only the settings of the process, without those of a single link.
    pub fn of_process(&self) -> Self {
        self.those(|name| table::find(name).is_some_and(|setting| setting.is_of_process()))
    }

    /// Whether a value was given for this name, be it one that cannot be used.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn only(&self, name: &str) -> Self {
        self.those(|other| other == name)
    }

    fn those(&self, belongs: impl Fn(&str) -> bool) -> Self {
        let those = self.0.iter().filter(|(name, _)| belongs(name));
        RawSettings(those.map(|(name, given)| (name.clone(), given.clone())).collect())
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names that no setting has, as they were written. Values of other tools stand beside ours, so this is worth a
    /// warning, not an error.
    pub fn unknown(&self) -> Vec<&str> {
        let is_unknown = |name: &str| table::find(name).is_none() && !is_of_wasmcloud(name);
        let unknown = self.0.iter().filter(|(name, _)| is_unknown(name));
        unknown.map(|(_, given)| given.written.as_str()).collect()
    }

    /// Warns about names that no setting has, with the setting that was meant.
    pub fn warn_unknown(&self, place: &str) {
        const SHOWN: usize = 5;
        let unknown = self.unknown();
        for name in unknown.iter().take(SHOWN) {
            let shown: String = name.chars().take(64).collect();
            let hint = match did_you_mean(name) {
                Some(meant) => format!("; did you mean {meant}?"),
                None => String::new(),
            };
            tracing::warn!("setting {shown:?} in {place} is not known here and has no effect{hint}");
        }
        if unknown.len() > SHOWN {
            tracing::warn!("{} more settings in {place} have no effect", unknown.len() - SHOWN);
        }
    }

    /// Whether something was given for a setting.
    pub(super) fn is_set<K>(&self, setting: &Setting<K>) -> bool {
        self.0.contains_key(setting.name)
    }

    /// Where it was given, if it was.
    pub(super) fn origin<K>(&self, setting: &Setting<K>) -> Option<Origin> {
        self.0.get(setting.name).map(|given| given.origin)
    }

    /// That what was given for a setting is not what was expected.
    pub(super) fn error<K: Kind>(&self, setting: &Setting<K>, expected: impl Into<String>) -> SettingError {
        let name = self.written(setting.name);
        let (found, origin) = match self.0.get(setting.name) {
            None => ("nothing".into(), Origin::ConfigJson),
            Some(Given { text: Err(found), .. }) => return SettingError::JsonType { name, found },
            Some(Given { origin, .. }) if setting.kind.is_secret() => ("something else (not shown)".into(), *origin),
            Some(Given {
                text: Ok(text), origin, ..
            }) => (format!("'{}'", shorten(text)), *origin),
        };
        SettingError::Value {
            name,
            origin,
            expected: expected.into(),
            found,
        }
    }
}

/// What wasmCloud's tools and hosts put among values by themselves.
fn is_of_wasmcloud(name: &str) -> bool {
    ["CONFIG_B64", "CONFIG_JSON"].contains(&name) || name.starts_with("__WASMCLOUD_")
}

/// Reads settings. What cannot be used is remembered, so that all of it is named at once.
pub(super) struct Reader<'a> {
    pub raw: &'a RawSettings,
    refused: Vec<SettingError>,
}

impl<'a> Reader<'a> {
    pub fn new(raw: &'a RawSettings) -> Self {
        Reader {
            raw,
            refused: Vec::new(),
        }
    }

    /// What holds for a setting. If what was given cannot be used, that is as if nothing had been given.
    pub fn get<K: Kind>(&mut self, setting: &Setting<K>) -> K::Value {
        let Some(given) = self.raw.0.get(setting.name) else {
            return setting.kind.unset();
        };
        let parsed = match &given.text {
            Ok(text) => setting.kind.parse(text.trim()),
            Err(_) => Err(String::new()),
        };
        parsed.unwrap_or_else(|expected| {
            self.refuse(self.raw.error(setting, expected));
            setting.kind.unset()
        })
    }

    pub fn refuse(&mut self, error: SettingError) {
        self.refused.push(error);
    }

    /// Refuses what was given for a setting if the file that it names cannot be used.
    pub fn refuse_file<K: Kind>(&mut self, setting: &Setting<K>, expected: &str, checked: Result<(), String>) {
        if let Err(reason) = checked {
            self.refuse(self.raw.error(setting, format!("{expected}; {reason}")));
        }
    }

    /// `value`, unless something was refused.
    pub fn done<T>(self, value: T) -> Result<T, SettingsError> {
        SettingsError::unless_empty(self.refused, value)
    }
}

/// The setting that an unknown name was meant to be, if it is nearly one.
pub fn did_you_mean(name: &str) -> Option<&'static str> {
    // Nobody misspells one in so many letters, and the comparison takes longer with each.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.trim().to_ascii_uppercase();
    let name = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(&name);
    let known = SETTINGS.iter().map(|setting| setting.name());
    let (distance, nearest) = known
        .map(|known| (strsim::osa_distance(name, known), known))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= (nearest.len() / 4).max(1)).then_some(nearest)
}

/// As it may be shown: a seed in the wrong place is not cut in two, but left out.
fn shorten(value: &str) -> String {
    const SHOWN: usize = 60;
    let value = cleaned(value);
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.into_owned(),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
