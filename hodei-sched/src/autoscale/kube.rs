//! The replicas of a Kubernetes workload, through its scale subresource.
//!
//! Two calls are all that is needed: read `/scale`, and patch `spec.replicas` in it. A client that knows every kind of the
//! API would be many times as large as everything else that this crate brings along, so a plain HTTP client makes them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hodei_core::{Error, ErrorKind, Fault, Result};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::target::ScaleTarget;

/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The longest reply that is read, in bytes.
const REPLY_MAX: u64 = 1 << 20;

/// Scales a workload that has the scale subresource: a Deployment, a StatefulSet, or a resource of one's own.
///
/// The account needs `get` and `patch` on the workload's `scale`. Pods that are too many get SIGTERM and their
/// `terminationGracePeriodSeconds`, in which an agent lets what it runs end.
#[derive(Clone)]
pub struct KubeScale {
    agent: Agent,
    url: String,
    token: Token,
}

#[derive(Clone)]
enum Token {
    None,
    Text(String),
    /// Read at every call: the cluster renews it.
    File(PathBuf),
}

impl fmt::Debug for KubeScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeScale").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Says which workload, and how the API is reached.
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct KubeScaleBuilder {
    server: String,
    group: String,
    namespace: String,
    resource: String,
    name: String,
    token: Token,
    authority: Option<Vec<u8>>,
}

impl fmt::Debug for KubeScaleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("KubeScaleBuilder");
        shown.field("server", &self.server).field("namespace", &self.namespace).field("name", &self.name);
        shown.finish_non_exhaustive()
    }
}

impl KubeScale {
    /// Scales a Deployment of the cluster that this pod runs in, in its namespace and with its account.
    ///
    /// # Errors
    ///
    /// `Config` when this is no pod of a cluster, or its account is not there.
    pub fn in_cluster(deployment: impl Into<String>) -> Result<KubeScaleBuilder> {
        let config = |why: String| Error::new(ErrorKind::Config, "kube.in_cluster").with("why", why);
        let variable = |name: &str| std::env::var(name).map_err(|_| config(format!("{name} is not set")));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        // The address of the seventh version has colons.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let account = Path::new(ACCOUNT);
        let read = |name: &str| {
            std::fs::read(account.join(name)).map_err(|error| config(format!("{ACCOUNT}/{name}: {error}")))
        };
        let namespace = String::from_utf8_lossy(&read("namespace")?).trim().to_owned();
        let builder = Self::deployment(format!("https://{host}:{port}"), namespace, deployment);
        Ok(builder.authority(read("ca.crt")?).token_file(account.join("token")))
    }

    /// Scales a Deployment by way of an API server, `https://…` or, for a local proxy, `http://…`.
    pub fn deployment(
        server: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> KubeScaleBuilder {
        KubeScaleBuilder {
            server: server.into(),
            group: "apps/v1".to_owned(),
            namespace: namespace.into(),
            resource: "deployments".to_owned(),
            name: name.into(),
            token: Token::None,
            authority: None,
        }
    }

    fn token(&self) -> Result<Option<String>> {
        match &self.token {
            Token::None => Ok(None),
            Token::Text(token) => Ok(Some(token.clone())),
            Token::File(path) => {
                let token = std::fs::read_to_string(path).map_err(|source| {
                    Error::new(ErrorKind::Io, "kube.token").with("path", path.display()).source_error(source)
                })?;
                Ok(Some(token.trim().to_owned()))
            }
        }
    }

    /// Makes a call on a thread that may block.
    async fn call(&self, replicas: Option<u32>) -> Result<Value> {
        let this = self.clone();
        let called = tokio::task::spawn_blocking(move || this.call_here(replicas)).await;
        called.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "kube.scale").with("why", "it was stopped"))
        })
    }

    fn call_here(&self, replicas: Option<u32>) -> Result<Value> {
        let bearer = self.token()?.map(|token| format!("Bearer {token}"));
        let lost = |source: ureq::Error| {
            Error::new(ErrorKind::Unavailable, "kube.scale").with("url", &self.url).source_error(source)
        };
        let reply = match replicas {
            None => {
                let mut call = self.agent.get(&self.url).header("Accept", "application/json");
                if let Some(bearer) = &bearer {
                    call = call.header("Authorization", bearer);
                }
                call.call()
            }
            Some(replicas) => {
                let mut call = self.agent.patch(&self.url).header("Accept", "application/json");
                call = call.header("Content-Type", "application/merge-patch+json");
                if let Some(bearer) = &bearer {
                    call = call.header("Authorization", bearer);
                }
                call.send(json!({"spec": {"replicas": replicas}}).to_string())
            }
        };
        let mut reply = reply.map_err(lost)?;
        let status = reply.status();
        let body = reply.body_mut().with_config().limit(REPLY_MAX).read_to_vec().map_err(lost)?;
        if !status.is_success() {
            return Err(refused(status, &body).with("url", &self.url));
        }
        serde_json::from_slice(&body).map_err(|source| {
            Error::new(ErrorKind::Unavailable, "kube.scale")
                .with("why", "the reply is no JSON")
                .source_error(source)
        })
    }
}

/// Says what a refusal means for the caller, with what the server says of it.
fn refused(status: StatusCode, body: &[u8]) -> Error {
    let kind = match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        409 => ErrorKind::Unavailable,
        400 | 422 => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let message = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or_default().to_owned();
    Error::new(kind, "kube.scale").with("status", status.as_u16()).with("message", message)
}

fn replicas_of(scale: &Value) -> Result<u32> {
    // A scale to zero is told by leaving the field out.
    let replicas = scale["spec"]["replicas"].as_u64().unwrap_or(0);
    if scale["kind"].as_str() != Some("Scale") {
        return Err(Error::new(ErrorKind::Unavailable, "kube.scale").with("why", "the reply is no Scale"));
    }
    Ok(u32::try_from(replicas).unwrap_or(u32::MAX))
}

#[async_trait]
impl ScaleTarget for KubeScale {
    async fn current(&self) -> Result<u32> {
        replicas_of(&self.call(None).await?)
    }

    async fn scale_to(&self, agents: u32) -> Result<()> {
        let got = replicas_of(&self.call(Some(agents)).await?)?;
        if got == agents {
            return Ok(());
        }
        // Somebody else scales it too.
        Err(Error::new(ErrorKind::Conflict, "kube.scale").with("asked", agents).with("got", got))
    }
}

impl KubeScaleBuilder {
    /// Scales another kind of workload: the group and version, and the plural of the resource. Default: `apps/v1`,
    /// `deployments`.
    pub fn resource(mut self, group: impl Into<String>, resource: impl Into<String>) -> Self {
        (self.group, self.resource) = (group.into(), resource.into());
        self
    }

    /// Sets the token that calls carry.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Text(token.into());
        self
    }

    /// Sets the file that the token is read from, at every call.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Token::File(path.into());
        self
    }

    /// Sets the certificates, as PEM, that the server's is to be signed by. Default: those that the web trusts.
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(pem.into());
        self
    }

    /// Checks everything. Nothing is called.
    ///
    /// # Errors
    ///
    /// `Invalid`: `server: no_url`, `namespace`, `name`, `resource` or `group: bad_char`, `authority: no_certificate`.
    pub fn build(self) -> Result<KubeScale> {
        let mut faults = Vec::new();
        if !["http://", "https://"].iter().any(|scheme| self.server.starts_with(scheme)) {
            faults.push(Fault::new("server", "no_url"));
        }
        let word = |text: &str, more: &str| {
            let ok = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || more.contains(letter);
            !text.is_empty() && text.chars().all(ok) && text != "." && text != ".."
        };
        let parts =
            [("namespace", &self.namespace, ""), ("name", &self.name, "."), ("resource", &self.resource, "")];
        for (field, text, more) in parts {
            if !word(text, more) {
                faults.push(Fault::new(field, "bad_char").detail(text.escape_debug().to_string()));
            }
        }
        let group = self.group.split('/').collect::<Vec<_>>();
        if group.len() != 2 || !group.iter().all(|part| word(part, ".")) {
            faults.push(Fault::new("group", "bad_char").detail(self.group.escape_debug().to_string()));
        }
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &self.authority {
            let found: Vec<Certificate<'static>> = ureq::tls::parse_pem(pem)
                .filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                faults.push(Fault::new("authority", "no_certificate"));
            }
            tls = tls.root_certs(RootCerts::from(found));
        }
        if !faults.is_empty() {
            return Err(Error::invalid("kube.build", faults));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(CALL_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls.build())
            .build();
        let server = self.server.trim_end_matches('/');
        let (group, namespace, resource, name) = (self.group, self.namespace, self.resource, self.name);
        let url = format!("{server}/apis/{group}/namespaces/{namespace}/{resource}/{name}/scale");
        Ok(KubeScale { agent: Agent::new_with_config(config), url, token: self.token })
    }
}
