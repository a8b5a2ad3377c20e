//! Address of the broker and credentials. Passwords never appear in messages.

use std::fmt;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

/// Default heartbeat in seconds: a broker that is silent for longer counts as disconnected.
const HEARTBEAT: u16 = 10;

/// The text is not an AMQP address, or requires something that is not supported.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is not an AMQP address.
    #[error(
        "cannot read the address of RabbitMQ; give it as amqp://USER:PASSWORD@HOST:PORT/VHOST, with %2f for a vhost /"
    )]
    Malformed,
    /// It requires TLS.
    #[error("amqps:// is not supported; use amqp:// through a tunnel")]
    Tls,
}

/// A broker, a virtual host on it, and a user.
#[derive(Clone)]
pub struct BrokerAddress(AMQPUri);

impl BrokerAddress {
    /// Reads `amqp://USER:PASSWORD@HOST:PORT/VHOST`.
    ///
    /// # Errors
    /// When the text is not an AMQP address, or begins with `amqps`.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let mut uri: AMQPUri = url.parse().map_err(|_| AddressError::Malformed)?;
        if uri.scheme == AMQPScheme::AMQPS {
            return Err(AddressError::Tls);
        }
        if uri.authority.host.is_empty() {
            return Err(AddressError::Malformed);
        }
        uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT));
        Ok(Self(uri))
    }

    /// The same from its parts, which the original server takes from environment variables; `vhost` is `/` or a name.
    pub fn new(host: &str, port: u16, vhost: &str, user: &str, password: &str) -> Self {
        Self(AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: user.to_owned(), password: password.to_owned() },
                host: host.to_owned(),
                port,
            },
            vhost: vhost.to_owned(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
        })
    }

    pub(crate) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPAuthority { host, port, .. } = &self.0.authority;
        write!(formatter, "{host}:{port}, vhost {}", self.0.vhost)
    }
}

impl fmt::Debug for BrokerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BrokerAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_passwords() {
        let address = BrokerAddress::parse("amqp://me:s3cr%40t@broker:5673/lab%2f1").unwrap();
        assert_eq!(
            format!("{address} {address:?}"),
            "broker:5673, vhost lab/1 BrokerAddress(broker:5673, vhost lab/1)"
        );
        assert_eq!(address.uri().authority.userinfo.password, "s3cr@t");
        assert_eq!(BrokerAddress::parse("amqp://host").unwrap().to_string(), "host:5672, vhost /");
        assert_eq!(BrokerAddress::parse("amqp://host/%2f").unwrap().to_string(), "host:5672, vhost /");
        for url in ["", "host:5672", "http://host", "amqp://me:secret@host:99999"] {
            let error = BrokerAddress::parse(url).unwrap_err().to_string();
            assert!(error.contains("amqp://USER:PASSWORD@") && !error.contains("secret"), "{url}: {error}");
        }
        assert!(matches!(BrokerAddress::parse("amqps://host"), Err(AddressError::Tls)));
        let parts = BrokerAddress::new("host", 5672, "/", "user", "user");
        assert_eq!(parts.uri(), BrokerAddress::parse("amqp://user:user@host:5672/%2f").unwrap().uri());
    }
}
