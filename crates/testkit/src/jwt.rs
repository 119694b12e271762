//! A trust chain for a nats-server in operator mode: operator, one account, and users with JWT and seed.

use std::fmt;

use anyhow::{Context, Result};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use serde_json::{json, Value};
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::keys::sdk_readable;

/// What a client needs to connect to a server in operator mode. The seed is not printed.
#[derive(Clone)]
pub struct UserCredentials {
    pub jwt: String,
    pub seed: String,
}

impl fmt::Debug for UserCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCredentials(..)")
    }
}

/// Signs accounts and users, and writes the configuration of a server that trusts them.
pub struct NatsOperator {
    operator: KeyPair,
    account: KeyPair,
}

impl Default for NatsOperator {
    fn default() -> Self {
        Self::new()
    }
}

impl NatsOperator {
    pub fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
        }
    }

    /// For [`crate::NatsServerBuilder::config`]: from then on only users of this operator are let in.
    pub fn server_config(&self) -> Result<String> {
        let operator = sign(
            &self.operator,
            &self.operator,
            json!({ "type": "operator", "version": 2 }),
        )?;
        let unlimited = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1 });
        let claims = json!({ "type": "account", "version": 2, "limits": unlimited });
        let account = sign(&self.operator, &self.account, claims)?;
        let id = self.account.public_key();
        Ok(format!(
            "operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {id}: {account} }}\n"
        ))
    }

    /// A fresh user who may publish and subscribe everything.
    pub fn user(&self) -> Result<UserCredentials> {
        let user = sdk_readable(KeyPair::new_user);
        let claims =
            json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        Ok(UserCredentials {
            jwt: sign(&self.account, &user, claims)?,
            seed: user.seed()?,
        })
    }
}

fn sign(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> Result<String> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let subject = subject.public_key();
    let claims = json!({ "jti": format!("{subject}-{now}"), "iat": now, "iss": issuer.public_key(),
        "name": "test", "sub": subject, "nats": nats });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let text = format!("{}.{}", encode(&header)?, encode(&claims)?);
    let signature = issuer.sign(text.as_bytes()).context("signing a NATS JWT")?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encode(value: &Value) -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(value)?))
}
