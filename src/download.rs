//! Fetching model files over https, from allowed hosts only, redirects included.

use std::{io::Read, time::Duration};

use elephant_model::ModelError;
use elephant_pipeline::ModelDownload;
use elephant_types::ErrorCode;
use ureq::{
    Agent,
    http::{Uri, header, uri::Scheme},
    tls::{Certificate, RootCerts, TlsConfig},
};
use url::Url;

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a whole download: a model of 24 MB on a slow line.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Downloads from a closed list of hosts.
pub struct HttpsDownload {
    agent: Agent,
    hosts: Vec<String>,
}

impl HttpsDownload {
    /// Downloads from `hosts` only.
    pub fn new(hosts: Vec<String>) -> Self {
        let config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            .tls_config(TlsConfig::builder().root_certs(authorities()).build())
            .build();
        Self { agent: config.into(), hosts }
    }

    fn allowed(&self, url: &str) -> Result<Uri, ModelError> {
        let refuse =
            |why: &str| ModelError::new(ErrorCode::InvalidArgument, format!("the model's address {why}: {url}"));
        let uri: Uri = url.parse().map_err(|_| refuse("is not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(refuse("must start with https"));
        }
        let host = uri.host().unwrap_or_default();
        if !self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
            let hosts = self.hosts.join(", ");
            let message = format!("the model's host is not allowed: {host}; these are: {hosts} (see --model-hosts)");
            return Err(ModelError::new(ErrorCode::InvalidArgument, message));
        }
        Ok(uri)
    }
}

impl ModelDownload for HttpsDownload {
    fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, ModelError> {
        let failed = |why: String| {
            let advice = "check the network, or fetch the file elsewhere and upload it";
            ModelError::new(ErrorCode::Unavailable, format!("cannot fetch the model: {why}; {advice} ({url})"))
        };
        let mut next = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let uri = self.allowed(&next)?;
            let response = self.agent.get(uri).call().map_err(|error| failed(error.to_string()))?;
            if !response.status().is_redirection() {
                return Ok(Box::new(response.into_body().into_reader()));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let target = Url::parse(&next).ok().zip(location).and_then(|(base, location)| base.join(location).ok());
            next = target.ok_or_else(|| failed("a redirect without a target".into()))?.into();
        }
        Err(failed("too many redirects".into()))
    }
}

/// Whom this machine trusts, a company's own authorities included; on a machine that trusts nobody, Mozilla's list.
fn authorities() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "certificate authorities of this machine cannot be read");
    }
    if found.certs.is_empty() {
        return RootCerts::WebPki;
    }
    found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into()
}

#[cfg(test)]
mod tests {
    use elephant_types::Coded;

    use super::*;

    #[test]
    fn only_https_from_allowed_hosts() {
        let download = HttpsDownload::new(vec!["models.example.org".into()]);
        for url in [
            "http://models.example.org/a.pth",
            "https://other.example.org/a.pth",
            "https://models.example.org.evil.com/a.pth",
            "https://models.example.org@evil.com/a.pth",
            "file:///etc/passwd",
            "Versatile",
            "",
        ] {
            let error = download.open(url).err().expect(url);
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{url}: {error}");
        }
        assert!(download.allowed("https://MODELS.example.org/a.pth").is_ok());
    }
}
