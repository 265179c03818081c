//! Stub.
/// Stub.
pub async fn compare_with_model<F: super::Fixture + 'static>(_: impl Fn() -> F) {}
