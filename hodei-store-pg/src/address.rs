//! Where a server is, and how its connections are encrypted.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Reads the address of a server.
///
/// # Errors
///
/// What is malformed in it, which may quote the password.
pub(crate) fn parse(url: &str) -> sqlx::Result<PgConnectOptions> {
    #[cfg(feature = "tls")]
    choose_cryptography();
    PgConnectOptions::from_str(url)
}

/// Gives this process a provider of cryptography, unless it has chosen one: where crates beside this one bring another, rustls
/// panics at the first certificate because it cannot tell which is meant.
#[cfg(feature = "tls")]
fn choose_cryptography() {
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    if CryptoProvider::get_default().is_none() {
        // Whoever was faster has chosen.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}
