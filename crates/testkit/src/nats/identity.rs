//! Identities for servers that ask for one: nkeys, and the JSON Web Tokens of NATS' decentralised authentication.

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// A user's nkey: what the client holds and what the server knows.
#[derive(Debug, Clone)]
pub struct UserNkey {
    /// The seed, a secret.
    pub seed: String,
    /// The public key.
    pub public: String,
}

impl UserNkey {
    /// A new one.
    pub fn generate() -> Result<Self> {
        let pair = KeyPair::new_user();
        Ok(Self { seed: pair.seed().map_err(|error| anyhow!("{error}"))?, public: pair.public_key() })
    }
}

/// An operator with one account that may use JetStream and one user in it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The part of the server's configuration that makes it trust this operator.
    pub config: String,
    /// The text of the user's `.creds` file, a secret.
    pub credentials: String,
}

impl Operator {
    /// A new one.
    pub fn generate() -> Result<Self> {
        let operator = KeyPair::new_operator();
        let system = KeyPair::new_account();
        let account = KeyPair::new_account();
        let user = KeyPair::new_user();
        let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1});
        let mut storage = unlimited.clone();
        storage["mem_storage"] = json!(-1);
        storage["disk_storage"] = json!(-1);
        storage["streams"] = json!(-1);
        storage["consumer"] = json!(-1);
        let operator_jwt = token(
            &operator,
            &operator.public_key(),
            json!({"type": "operator", "version": 2, "system_account": system.public_key()}),
        )?;
        let system_jwt = token(
            &operator,
            &system.public_key(),
            json!({"type": "account", "version": 2, "limits": unlimited}),
        )?;
        let account_jwt = token(
            &operator,
            &account.public_key(),
            json!({"type": "account", "version": 2, "limits": storage}),
        )?;
        let user_jwt = token(
            &account,
            &user.public_key(),
            json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}),
        )?;
        let seed = user.seed().map_err(|error| anyhow!("{error}"))?;
        Ok(Self {
            config: format!(
                "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\n\
                 resolver_preload: {{ {}: {system_jwt}, {}: {account_jwt} }}\n",
                system.public_key(),
                system.public_key(),
                account.public_key()
            ),
            credentials: format!(
                "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ),
        })
    }
}

fn token(issuer: &KeyPair, subject: &str, claims: Value) -> Result<String> {
    let head = URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}).to_string());
    let body = json!({"jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": subject,
        "sub": subject, "nats": claims});
    let body = URL_SAFE_NO_PAD.encode(body.to_string());
    let signed = format!("{head}.{body}");
    let signature = issuer.sign(signed.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
