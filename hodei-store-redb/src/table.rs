//! Every table of the file, on one page. Keys are the ordered bytes of [`crate::key`], values the rows of
//! [`crate::codec`]; an index row is its key alone unless said otherwise.

use redb::TableDefinition;

/// The definition of a table: bytes to bytes.
pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $tab:ident = $name:literal,)*) => {
        /// A table of the file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Tab { $($(#[$doc])* $tab,)* }

        impl Tab {
            /// Every table.
            pub(crate) const ALL: &[Self] = &[$(Self::$tab,)*];

            /// Returns the name of the table in the file.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$tab => $name,)* }
            }
        }
    };
}

tables! {
    /// id → what the job was born with: spec, parents, unique key, fingerprint, and what lists show. Written once.
    Born = "born",
    /// id → what moves, with what lists show: small, rewritten with every transition after the first. A job without such
    /// a row is as it was born.
    Heads = "heads",
    /// id → how the last run ended, unless it just succeeded.
    Ends = "ends",
    /// number of a batch → the jobs that came together, until the last of them has ended: whoever opens the file finds
    /// what is open, without reading what has ended.
    Open = "open",
    /// (tenant, state, created_at, id): the lists of what has ended. Those of open jobs are in memory.
    Ended = "ended",
    /// (pipeline, created_at, id): the steps of a pipeline.
    Pipelines = "pipelines",
    /// (tenant, unique key) → the job that holds it.
    Unique = "unique",
    /// (tenant, sequence) → the last job of it, as long as that is kept.
    Sequences = "sequences",
    /// (parent, child) → what is needed of the parent, and whether the child was told of its end.
    Children = "children",
    /// sequence number of the first → changes, a few to a row.
    Changes = "changes",
    /// (tenant, queue) → how many jobs are in each state; none for a queue without jobs. Beside them (tenant), as older
    /// schemas have it: the jobs of theirs that are not counted by queue yet.
    Counts = "counts",
    /// (tenant, key) → limit; beside them (tenant), (tenant, NUL, queue) and (): those of a tenant, a queue, and all.
    Limits = "limits",
    /// as [`Tab::Limits`] → the rate of a limit that has one, and what is spent of it.
    Rates = "rates",
    /// (tenant, queue) → policy.
    Queues = "queues",
    /// (tenant, name) → schedule.
    Schedules = "schedules",
    /// owner → incarnation and end of life.
    Owners = "owners",
    /// duty → term.
    Terms = "terms",
    /// (id, tenant) → how far a run of the job has come, and which runs are shut out.
    Checkpoints = "checkpoints",
    /// slot → how far its last move has come; none for a slot that never moved.
    Slots = "slots",
    /// (slot, tenant, queue) → how many jobs are in each state whose slot is arriving; of one that is going away, which
    /// tenants still have rows.
    Apart = "apart",
    /// name → what whoever stands above the store keeps in it, and how often it was written.
    Notes = "notes",
    /// name → number: the schema, the last incarnation, the first change that is kept; how many jobs that wait have moved;
    /// how far a migration has come.
    Meta = "meta",
}

impl Tab {
    /// The tables whose rows a file of schema 1 hands down as they are, but for their checksums. Of the others it has none,
    /// or they are rewritten.
    pub(crate) const HANDED_DOWN: [Self; 11] = [
        Self::Ends,
        Self::Unique,
        Self::Children,
        Self::Changes,
        Self::Counts,
        Self::Limits,
        Self::Queues,
        Self::Schedules,
        Self::Owners,
        Self::Terms,
        Self::Meta,
    ];

    /// Returns the definition of the table.
    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }

    /// Returns the place of the table among all.
    pub(crate) const fn number(self) -> usize {
        self as usize
    }
}

/// The version of the schema, in [`Tab::Meta`] under [`META_SCHEMA`]. A file with a higher one is not touched.
pub(crate) const SCHEMA: u64 = 6;
/// Where the version of the schema is.
pub(crate) const META_SCHEMA: &[u8] = b"schema";
/// Where the last incarnation that was given out is.
pub(crate) const META_INCARNATION: &[u8] = b"incarnation";
/// Where the number of the first change that is kept is.
pub(crate) const META_FLOOR: &[u8] = b"floor";
/// Where the number of jobs is that wait to be claimed and have moved before: each has a row of its moves.
pub(crate) const META_MOVED: &[u8] = b"moved";
/// Where it is which jobs of an older schema are still to be counted by queue, as long as there are some.
pub(crate) const META_COUNTING: &[u8] = b"counting";
/// Where the last job that was migrated is, while a file of schema 1 is on its way to ours.
pub(crate) const META_MIGRATED: &[u8] = b"migrated";
