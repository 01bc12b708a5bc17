//! Whom a nats-server trusts: an operator, one account with `JetStream`, and users of it by JWT and
//! seed. The JWTs are of the form that the server's own library writes (`nats-io/jwt`, version 2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// The keys of an operator, an account, and the server's own account.
#[derive(Debug)]
pub struct Trust {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Default for Trust {
    fn default() -> Self {
        let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
        Self { operator: KeyPair::new_operator(), account, system }
    }
}

impl Trust {
    /// What a server's configuration says of them.
    #[must_use]
    pub fn config(&self) -> String {
        let operator = jwt(&self.operator, &self.operator, None, &json!({ "type": "operator" }));
        let limits = [
            "subs",
            "data",
            "payload",
            "imports",
            "exports",
            "conn",
            "leaf",
            "mem_storage",
            "disk_storage",
            "streams",
            "consumer",
        ];
        let mut limits: serde_json::Map<_, _> =
            limits.into_iter().map(|limit| (limit.to_owned(), json!(-1))).collect();
        limits.insert("wildcards".to_owned(), json!(true));
        let with_jetstream = json!({ "type": "account", "limits": limits });
        let accounts =
            [(&self.account, with_jetstream), (&self.system, json!({ "type": "account" }))];
        let preloaded = accounts.map(|(key, claims)| {
            format!("{}: {}", key.public_key(), jwt(&self.operator, key, None, &claims))
        });
        let (preloaded, system) = (preloaded.join(", "), self.system.public_key());
        format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {preloaded} }}\n"
        )
    }

    /// The credentials file of a new user, good for this long.
    #[must_use]
    pub fn user(&self, good_for: Duration) -> String {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let jwt = jwt(&self.account, &user, Some(good_for), &claims);
        let seed = user.seed().expect("a new key has a seed");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, good_for: Option<Duration>, claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let mut nats = claims.clone();
    nats["version"] = json!(2);
    let mut body = json!({
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test",
        "iat": now.as_secs(), "jti": "test", "nats": nats,
    });
    if let Some(good_for) = good_for {
        body["exp"] = json!((now + good_for).as_secs());
    }
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed =
        format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&body));
    let signature = issuer.sign(signed.as_bytes()).expect("a new key signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
