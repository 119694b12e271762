//! A session with the servers of a URL.

use std::time::Duration;

use kvcache_node::store::StoreError;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::client::SelfIdentity;
use scylla::policies::load_balancing::DefaultPolicy;

use crate::errors::Place;
use crate::options::Options;

/// Servers that have gone without a word are seen by this.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Connects, and reads which servers there are.
pub(crate) async fn connect(options: &Options, place: &Place) -> Result<Session, StoreError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(name) = &options.datacenter {
        policy = policy.prefer_datacenter(name.clone());
    }
    // Of the retries of the driver each goes to another server, and all together end in time.
    let profile = ExecutionProfile::builder()
        .consistency(options.consistency)
        .request_timeout(Some(options.timeout))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.hosts)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.timeout)
        .hostname_resolution_timeout(Some(options.timeout))
        .metadata_request_clientside_timeout(options.timeout)
        .schema_agreement_timeout(options.timeout)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(options.timeout)
        // Which replicas hold a row is all that is asked of the schema.
        .keyspaces_to_fetch([&options.keyspace])
        .custom_identity(SelfIdentity::new().with_application_name("nats-kvcache"));
    if let Some((user, password)) = &options.login {
        builder = builder.user(user, &password.0);
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &options.tls {
        let unusable = |reason| StoreError::Unusable(format!("{}: {reason}", place.server));
        builder = builder.tls_context(Some(crate::tls::config(tls).map_err(unusable)?));
    }
    builder.build().await.map_err(|error| place.error("connecting", error))
}
