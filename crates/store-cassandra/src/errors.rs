//! What errors of the driver mean for a store.

use kvcache_node::secret::cleaned;
use kvcache_node::store::StoreError;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
    NewSessionError, PrepareError, RequestAttemptError, SchemaAgreementError,
};

/// What is needed to name an error.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Such as `Cassandra at host:9042`.
    pub(crate) server: String,
    pub(crate) user: Option<String>,
    pub(crate) keyspace: String,
    pub(crate) datacenter: Option<String>,
}

impl Place {
    /// An error about what was tried.
    pub(crate) fn error(&self, tried: &str, error: impl Into<Failure>) -> StoreError {
        let Failure { reason, text } = error.into();
        let text = |advice: &str| cleaned(&format!("{}: {tried}: {text}{advice}", self.server)).into_owned();
        let advice = match (reason, &self.datacenter) {
            (Reason::Passing, _) | (Reason::NoPlan, None) => return StoreError::Away(text("")),
            (Reason::Refused, _) => return StoreError::Unusable(text("")),
            (Reason::NoPlan, Some(name)) => {
                format!("is there a datacenter {name:?}? nodetool status shows their names")
            }
            (Reason::Login, _) => "user and password in the URL have to be those of a role that may log in".into(),
            (Reason::Unauthorized, _) => self.grants(),
        };
        StoreError::Unusable(text(&format!(" ({advice})")))
    }

    /// What a role has to be allowed.
    fn grants(&self) -> String {
        let role = self.user.as_deref().unwrap_or("cassandra").replace('\'', "''");
        let keyspace = &self.keyspace;
        format!(
            "GRANT SELECT ON KEYSPACE \"{keyspace}\" TO '{role}'; GRANT MODIFY ON KEYSPACE \"{keyspace}\" TO '{role}'; \
             and to make the table: GRANT CREATE ON KEYSPACE \"{keyspace}\" TO '{role}'; or the keyspace: GRANT CREATE ON \
             ALL KEYSPACES TO '{role}';"
        )
    }

    /// It took too long.
    pub(crate) fn too_slow(&self, tried: &str, limit: std::time::Duration) -> StoreError {
        StoreError::Away(format!("{}: {tried}: no answer within {limit:?}", self.server))
    }
}

/// Why something went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    /// Out of reach, too slow, too busy, not enough replicas.
    Passing,
    /// No login, or a wrong one.
    Login,
    /// Logged in, but not allowed.
    Unauthorized,
    /// No node that may be asked.
    NoPlan,
    /// It will say the same again.
    Refused,
}

/// An error of the driver, told apart.
pub(crate) struct Failure {
    reason: Reason,
    text: String,
}

impl From<ExecutionError> for Failure {
    fn from(error: ExecutionError) -> Self {
        let reason = match &error {
            ExecutionError::LastAttemptError(error) => of_attempt(error),
            ExecutionError::PrepareError(error) => of_preparation(error),
            ExecutionError::ConnectionPoolError(error) => of_pool(error),
            ExecutionError::SchemaAgreementError(error) => of_agreement(error),
            ExecutionError::EmptyPlan => Reason::NoPlan,
            ExecutionError::BadQuery(_) => Reason::Refused,
            _ => Reason::Passing,
        };
        let text = error.to_string();
        Failure { reason, text }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let reason = of_preparation(&error);
        let text = error.to_string();
        Failure { reason, text }
    }
}

impl From<NewSessionError> for Failure {
    fn from(error: NewSessionError) -> Self {
        let reason = match &error {
            NewSessionError::MetadataError(MetadataError::ConnectionPoolError(error)) => of_pool(error),
            NewSessionError::IllegalConfig(_) => Reason::Refused,
            _ => Reason::Passing,
        };
        let text = error.to_string();
        Failure { reason, text }
    }
}

impl From<SchemaAgreementError> for Failure {
    fn from(error: SchemaAgreementError) -> Self {
        let reason = of_agreement(&error);
        let text = error.to_string();
        Failure { reason, text }
    }
}

/// Whether a server cannot prepare a statement: it does not know the table, or knows it and does not find it. While a
/// table is made it says both.
pub(crate) fn is_confused(error: &PrepareError) -> bool {
    let PrepareError::AllAttemptsFailed { first_attempt } = error else {
        return false;
    };
    matches!(
        first_attempt,
        RequestAttemptError::DbError(DbError::Invalid | DbError::ServerError, _)
    )
}

fn of_attempt(error: &RequestAttemptError) -> Reason {
    match error {
        RequestAttemptError::DbError(error, _) => of_server(error),
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => Reason::Refused,
        _ => Reason::Passing,
    }
}

fn of_server(error: &DbError) -> Reason {
    match error {
        DbError::AuthenticationError => Reason::Login,
        DbError::Unauthorized => Reason::Unauthorized,
        // Of the keyspace or the table, of a consistency, of a size, of a version: as they are they stay.
        DbError::Invalid
        | DbError::SyntaxError
        | DbError::ConfigError
        | DbError::ProtocolError
        | DbError::AlreadyExists { .. } => Reason::Refused,
        _ => Reason::Passing,
    }
}

fn of_preparation(error: &PrepareError) -> Reason {
    match error {
        PrepareError::ConnectionPoolError(error) => of_pool(error),
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        _ => Reason::Passing,
    }
}

fn of_agreement(error: &SchemaAgreementError) -> Reason {
    match error {
        SchemaAgreementError::ConnectionPoolError(error) => of_pool(error),
        SchemaAgreementError::PrepareError(error) => of_preparation(error),
        SchemaAgreementError::RequestError(error) => of_attempt(error),
        _ => Reason::Passing,
    }
}

fn of_pool(error: &ConnectionPoolError) -> Reason {
    let ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(error),
    } = error
    else {
        return Reason::Passing;
    };
    match error.get_error() {
        ConnectionSetupRequestErrorKind::MissingAuthentication
        | ConnectionSetupRequestErrorKind::StartAuthSessionError(_)
        | ConnectionSetupRequestErrorKind::AuthChallengeEvaluationError(_)
        | ConnectionSetupRequestErrorKind::AuthFinishError(_) => Reason::Login,
        ConnectionSetupRequestErrorKind::DbError(error, _) => of_server(error),
        _ => Reason::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            server: "Cassandra at host:9042".into(),
            user: Some("o'me".into()),
            keyspace: "cache".into(),
            datacenter: None,
        }
    }

    fn of(error: DbError) -> StoreError {
        let error = RequestAttemptError::DbError(error, "why\nnot".into());
        place().error("writing", ExecutionError::from(error))
    }

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        for error in [
            DbError::Overloaded,
            DbError::IsBootstrapping,
            DbError::ServerError,
            DbError::Other(7),
        ] {
            assert!(matches!(of(error.clone()), StoreError::Away(_)), "{error}");
        }
        for error in [
            DbError::Invalid,
            DbError::ConfigError,
            DbError::SyntaxError,
            DbError::AuthenticationError,
        ] {
            assert!(matches!(of(error.clone()), StoreError::Unusable(_)), "{error}");
        }
        let away = place().error(
            "writing",
            ExecutionError::RequestTimeout(std::time::Duration::from_secs(5)),
        );
        assert!(matches!(away, StoreError::Away(_)));
    }

    #[test]
    fn who_is_not_allowed_is_told_what_to_grant() {
        let text = of(DbError::Unauthorized).to_string();
        assert!(
            text.contains("GRANT MODIFY ON KEYSPACE \"cache\" TO 'o''me';"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn a_datacenter_without_nodes_is_named() {
        let error = || place().error("reading", ExecutionError::EmptyPlan);
        assert!(matches!(error(), StoreError::Away(_)));
        let place = Place {
            datacenter: Some("west".into()),
            ..place()
        };
        let error = place.error("reading", ExecutionError::EmptyPlan);
        assert!(
            matches!(&error, StoreError::Unusable(text) if text.contains("\"west\"")),
            "{error}"
        );
    }
}
