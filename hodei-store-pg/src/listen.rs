//! Telling other nodes that something was committed, and hearing it from them.
//!
//! Nothing depends on it but speed: who hears nothing looks by himself after a while. Announcements are sent after the
//! commit and beside it, since a NOTIFY inside a transaction holds up the commits of all others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hodei_core::Name;
use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::ask;
use crate::error::failed;
use crate::inner::Inner;
use crate::read::Place;

/// The channel of all nodes.
pub(crate) const CHANNEL: &str = "hodei";
/// One announcement stands for all commits of so long: 5 ms.
const COALESCED: Duration = Duration::from_millis(5);
/// How often a node makes sure that it hears itself.
const PROBED: Duration = Duration::from_secs(30);
/// How long a probe may take until it is heard.
const HEARD: Duration = Duration::from_secs(5);
/// How often a node that hears nothing looks by itself while it finds something: half to one and a half of this.
const LOOKED: Duration = Duration::from_millis(500);
/// How often it does where it has found nothing for long: 5 s, as exactly.
const LOOKED_MAX: Duration = Duration::from_secs(5);
/// How many duties are known at most by who leads them: anybody on the database can tell of some.
const DUTIES: usize = 64;
/// How often the log is read on while there is more of it, before whatever else came is heard.
const LOOKS: u32 = 20;
/// How long the end of the log is left alone at most while somebody holds it up: 160 ms.
const HELD_UP: Duration = Duration::from_millis(160);
/// After how many commits what they counted is added up.
const FOLDED: u64 = 256;
/// After how many claims what they left behind is swept up.
const SWEPT: u64 = 32_768;

/// What is to be announced, and who does it.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    readied: AtomicBool,
    changed: AtomicBool,
    commits: AtomicU64,
    claims: AtomicU64,
    due: Notify,
    /// Somebody wants to be told what others commit.
    pub(crate) followed: Notify,
    /// When who leads a duty was heard last, and whether he told of schedules.
    led: Mutex<HashMap<String, (Instant, bool)>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Announcer {
    /// Says, where somebody who leads a duty was heard within a time, whether he told of schedules.
    pub(crate) fn is_led(&self, duty: &Name, within: Duration) -> Option<bool> {
        let led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        led.get(duty.as_str()).filter(|(heard, _)| heard.elapsed() < within).map(|(_, scheduled)| *scheduled)
    }

    /// Notes that somebody leads a duty, and whether there are schedules.
    fn led(&self, duty: &str, scheduled: bool) {
        let mut led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        if led.len() < DUTIES || led.contains_key(duty) {
            led.insert(duty.to_owned(), (Instant::now(), scheduled));
        }
    }

    /// Notes that nobody leads a duty any more.
    fn left(&self, duty: &str) {
        self.led.lock().unwrap_or_else(PoisonError::into_inner).remove(duty);
    }

    /// Notes a commit, which is announced soon.
    pub(crate) fn committed(&self, readied: bool) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if readied {
            self.readied.store(true, Ordering::Release);
        }
        self.changed.store(true, Ordering::Release);
        self.due.notify_one();
    }

    /// Notes claims, before their commit is.
    pub(crate) fn claimed(&self, jobs: usize) {
        self.claims.fetch_add(jobs as u64, Ordering::Relaxed);
    }
}

/// Starts the tasks of a store. They end with it.
pub(crate) fn start(inner: &Arc<Inner>) {
    let announcing = tokio::spawn(announce(Arc::downgrade(inner), Arc::clone(&inner.announcer)));
    let options = inner.pools.options().clone();
    let listening = tokio::spawn(listen(Arc::downgrade(inner), options, Arc::clone(&inner.announcer)));
    let mut tasks = inner.announcer.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    tasks.extend([announcing.abort_handle(), listening.abort_handle()]);
}

/// Ends the tasks of a store.
pub(crate) fn stop(inner: &Inner) {
    for task in inner.announcer.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        task.abort();
    }
}

async fn announce(inner: Weak<Inner>, announcer: Arc<Announcer>) {
    let (mut folded, mut swept) = (0, 0);
    let mut sweeping: Option<JoinHandle<()>> = None;
    loop {
        announcer.due.notified().await;
        let Some(inner) = inner.upgrade() else { return };
        if announcer.changed.swap(false, Ordering::AcqRel) {
            let what = if announcer.readied.swap(false, Ordering::AcqRel) { "ready" } else { "change" };
            // Who does not hear it looks by himself.
            drop(notify(&inner, TELL, format!("{what} {}", inner.node)).await);
        }
        let commits = announcer.commits.load(Ordering::Relaxed);
        if commits - folded >= FOLDED {
            folded = commits;
            drop(fold(&inner).await);
        }
        let claims = announcer.claims.load(Ordering::Relaxed);
        if claims - swept >= SWEPT && sweeping.as_ref().is_none_or(JoinHandle::is_finished) {
            swept = claims;
            let inner = Arc::clone(&inner);
            // Beside the announcements, which do not wait for it.
            sweeping = Some(tokio::spawn(async move { drop(sweep(&inner).await) }));
        }
        drop(inner);
        tokio::time::sleep(COALESCED).await;
    }
}

/// Sends a word to all nodes. The server does not wait for its disk: a word that a crash swallows was heard by nobody who
/// still listens, and the disk is what the next commit waits for.
const TELL: &str = "SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)";
/// As [`TELL`], and says whether anything is there that was to be told of: whoever tells may die before he does. It asks for
/// the first of each in its order: a row that is anywhere would be looked for past all that is dead.
const PROBE: &str = "SELECT pg_notify($1, $2),
    (SELECT true FROM hodei.ready ORDER BY lane, rank, eligible_at, id LIMIT 1) IS NOT NULL
        OR (SELECT true FROM hodei.delayed WHERE eligible_at <= (SELECT hodei.now())
            ORDER BY eligible_at, id LIMIT 1) IS NOT NULL,
    (SELECT true FROM hodei.inbox WHERE refused IS NULL ORDER BY no LIMIT 1) IS NOT NULL,
    set_config('synchronous_commit', 'off', true)";

async fn notify(inner: &Inner, sql: &'static str, payload: String) -> hodei_core::Result<PgRow> {
    const OP: &str = "store.notify";
    let mut conn = inner.pools.aside.acquire(OP).await?;
    inner.trip();
    let sent = async {
        let query = ask::query(sql).bind(CHANNEL).bind(payload);
        query.fetch_one(&mut *conn).await.map_err(failed(OP))
    };
    match inner.in_time(OP, sent).await {
        Ok(row) => conn.clean().await.map(|()| row).map_err(failed(OP)),
        Err(error) => {
            inner.pools.aside.forget();
            Err(error)
        }
    }
}

/// Sends a word to hear it, and sees to what nobody told of; says whether there was anything.
async fn probe(inner: &Arc<Inner>) -> hodei_core::Result<bool> {
    let found = notify(inner, PROBE, format!("probe {}", inner.node)).await?;
    let (work, requests) = (found.try_get(1).unwrap_or(true), found.try_get(2).unwrap_or(true));
    if work {
        inner.wakeups.ring();
    }
    if requests {
        // A failure is met again with the next probe.
        drop(inner.drain_inbox().await);
    }
    Ok(work || requests)
}

/// Adds up what was counted, so that the counts stay cheap to read.
async fn fold(inner: &Inner) -> hodei_core::Result<()> {
    const OP: &str = "store.fold";
    let mut conn = inner.pools.aside.acquire(OP).await?;
    inner.trip();
    let folded = async { ask::query("SELECT hodei.fold()").execute(&mut *conn).await.map_err(failed(OP)) };
    inner.in_time(OP, folded).await?;
    conn.clean().await.map_err(failed(OP))
}

/// Frees what claimed jobs left behind in the table of the ready ones. Whoever looks for the first ready job goes past all of
/// it, and the server's own vacuum comes once a minute: by then it may be a million rows. The server passes over what does
/// not belong to the role of the store.
async fn sweep(inner: &Inner) -> hodei_core::Result<()> {
    const OP: &str = "store.sweep";
    if !ask::named() {
        // It is not possible inside of a transaction.
        return Ok(());
    }
    let mut conn = inner.pools.sweeping.acquire(OP).await?;
    inner.trip();
    let swept = async {
        let sql = "VACUUM (SKIP_LOCKED, TRUNCATE false) hodei.ready";
        sqlx::raw_sql(sql).execute(&mut *conn).await.map_err(failed(OP))
    };
    inner.in_time(OP, swept).await?;
    conn.clean().await.map_err(failed(OP))
}

/// Listens, and listens anew where that ends.
async fn listen(inner: Weak<Inner>, options: PgConnectOptions, announcer: Arc<Announcer>) {
    let mut tail = Tail { inner, place: None, again: None, pause: COALESCED };
    let mut pause = LOOKED;
    loop {
        let heard = hear(&mut tail, &options, &announcer).await;
        // Deaf: the server is away, or a proxy stands before it that gives each transaction another connection.
        let again = Instant::now() + if heard { Duration::ZERO } else { PROBED };
        loop {
            let Some(inner) = tail.inner.upgrade() else { return };
            let found = tail.look(&inner).await;
            pause = if found || heard { LOOKED } else { LOOKED_MAX.min(2 * pause) };
            let pause = pause / 2 + inner.random(pause);
            drop(inner);
            tokio::time::sleep(pause).await;
            if Instant::now() >= again {
                break;
            }
        }
    }
}

/// Listens until that ends, and says whether anything was ever heard.
async fn hear(tail: &mut Tail, options: &PgConnectOptions, announcer: &Announcer) -> bool {
    if tail.inner.upgrade().is_some_and(|inner| inner.pools.are_lent()) {
        // What is heard would come to whoever has the connection by then.
        return false;
    }
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(HEARD)
        .connect_lazy_with(options.clone());
    let Ok(mut listener) = PgListener::connect_with(&pool).await else { return false };
    listener.eager_reconnect(false);
    if listener.listen(CHANNEL).await.is_err() {
        return false;
    }
    if let Some(inner) = tail.inner.upgrade() {
        // Whatever came before is not announced any more.
        inner.wakeups.ring();
        drop(inner.drain_inbox().await);
        tail.follow(&inner).await;
    }
    let (mut ever, mut next, mut asked) = (false, Instant::now() + LOOKED, None::<Instant>);
    loop {
        let until = asked.map_or(next, |asked| asked + HEARD);
        let note = tokio::select! {
            note = listener.try_recv() => Some(note),
            () = tokio::time::sleep_until(until) => None,
            () = tokio::time::sleep_until(tail.again.unwrap_or(until)), if tail.again.is_some() => {
                let Some(inner) = tail.inner.upgrade() else { return ever };
                tail.follow(&inner).await;
                continue;
            }
            () = announcer.followed.notified() => {
                let Some(inner) = tail.inner.upgrade() else { return ever };
                tail.follow(&inner).await;
                continue;
            }
        };
        let Some(inner) = tail.inner.upgrade() else { return ever };
        match note {
            Some(Ok(Some(note))) => {
                let (what, node) = note.payload().split_once(' ').unwrap_or_default();
                if what == "probe" && node.parse() == Ok(inner.node) {
                    (ever, asked, next) = (true, None, Instant::now() + PROBED);
                }
                tail.take(&inner, announcer, what, node).await;
            }
            Some(_) => return ever,
            // A probe that was not heard.
            None if asked.is_some() => return false,
            None => {
                asked = Some(Instant::now());
                if probe(&inner).await.is_err() {
                    return ever;
                }
            }
        }
    }
}

/// What others commit, read from the log as far as it is complete, while there is a sink to be told.
struct Tail {
    inner: Weak<Inner>,
    place: Option<Place>,
    /// When it is looked at again: there is more of it.
    again: Option<Instant>,
    /// How long the next look waits if this one finds nothing.
    pause: Duration,
}

impl Tail {
    /// Takes in a word, and of whom or what it is.
    async fn take(&mut self, inner: &Arc<Inner>, announcer: &Announcer, what: &str, of: &str) {
        let own = of.parse() == Ok(inner.node);
        match what {
            // A failure is met again with the next probe.
            "inbox" => drop(inner.drain_inbox().await),
            "ready" if !own => {
                inner.wakeups.ring();
                self.follow(inner).await;
            }
            "change" if !own => self.follow(inner).await,
            "led" => announcer.led(of, false),
            "fires" => announcer.led(of, true),
            "left" => announcer.left(of),
            _ => {}
        }
    }

    /// Looks for what it may not have heard of, and says whether there was anything, as there may be where the server does
    /// not say.
    async fn look(&mut self, inner: &Arc<Inner>) -> bool {
        let before = self.place;
        let found = probe(inner).await.unwrap_or_else(|_| {
            inner.wakeups.ring();
            true
        });
        self.follow(inner).await;
        found || self.place != before
    }

    async fn follow(&mut self, inner: &Arc<Inner>) {
        self.again = None;
        if !inner.teller.is_heard() {
            self.place = None;
            return;
        }
        for _ in 0..LOOKS {
            let Ok((changes, place, more)) = inner.foreign(self.place).await else {
                // The place is kept: what follows it is told when the log can be read again.
                self.again = Some(Instant::now() + LOOKED);
                return;
            };
            let (began, still) = (self.place.is_some(), self.place == Some(place));
            self.place = Some(place);
            if began {
                inner.teller.tell(&changes);
            }
            if still && more {
                // What follows is not complete yet. Who holds it up may do so for long.
                self.again = Some(Instant::now() + self.pause);
                self.pause = HELD_UP.min(self.pause * 2);
                return;
            }
            self.pause = COALESCED;
            if !more {
                return;
            }
        }
        self.again = Some(Instant::now());
    }
}
