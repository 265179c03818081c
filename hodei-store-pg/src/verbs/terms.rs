//! Whether a term lasts, decided inside the transaction that it fences.

use hodei_core::store::Term;
use hodei_core::{Result, Timestamp};

use crate::ask;
use crate::error::failed;
use crate::names::column;
use crate::work::Work;

/// Tells when a term ends, with its row locked as is said.
macro_rules! ends {
    ($locked:literal) => {
        concat!(
            "SELECT hodei.now(), (SELECT expires_at FROM hodei.term
                 WHERE duty = $1 AND number = $2 AND owner = $3 AND incarnation = $4 ",
            $locked,
            ")"
        )
    };
}

/// Says whether a term lasts, and keeps it from ending before this transaction does: nobody else can take the duty
/// as long. Its leader can prolong it meanwhile.
pub(crate) async fn leads(work: &mut Work<'_>, term: &Term) -> Result<bool> {
    lasts(work, term, ends!("FOR KEY SHARE")).await
}

/// Says whether a term lasts, for what takes long and may also be done by somebody whose term has ended meanwhile.
pub(crate) async fn still_leads(work: &mut Work<'_>, term: &Term) -> Result<bool> {
    lasts(work, term, ends!("")).await
}

async fn lasts(work: &mut Work<'_>, term: &Term, sql: &'static str) -> Result<bool> {
    work.inner().trip();
    let row = ask::query(sql)
        .bind(term.duty.as_str())
        .bind(term.number.cast_signed())
        .bind(term.holder.owner.name().as_str())
        .bind(term.holder.incarnation.cast_signed())
        .fetch_one(&mut *work.conn)
        .await
        .map_err(failed("store.term"))?;
    let now: i64 = column(&row, 0)?;
    work.now = work.now.max(Timestamp::from_micros(now));
    Ok(column::<Option<i64>>(&row, 1)?.is_some_and(|expires_at| expires_at > now))
}
