//! The way to a spec: collect, then hold everything to the limits at once.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use super::payload::{Command, CommandMore, Payload};
use super::placement::Placement;
use super::resources::Resources;
use super::retry::RetryPolicy;
use super::selector::Selector;
use super::share::Share;
use super::spec::{JobSpec, Priority, SpecLimits, SpecParts, lasts_of};
use super::validate;
use crate::error::{Error, Fault, Result};
use crate::id::Name;
use crate::text::{TextMap, Texts};

/// The queue of jobs that name none.
const DEFAULT_QUEUE: &str = "default";

/// Collects the parts of a [`JobSpec`]; [`JobSpecBuilder::build`] checks them all and reports every fault at once.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct JobSpecBuilder {
    pub(super) name: Option<String>,
    pub(super) queue: Cow<'static, str>,
    pub(super) work: Work,
    pub(super) resources: Resources,
    pub(super) priority: Priority,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Box<RetryPolicy>>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few specs have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    pub(super) limit_keys: Vec<String>,
    pub(super) placement: Placement,
    /// What was said of a command although the work is a handler.
    pub(super) misplaced: Vec<&'static str>,
}

/// The work before it is checked.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Handler(Payload),
    Command(RawCommand),
}

/// A command before it is checked.
#[derive(Clone, Debug, Default)]
pub(super) struct RawCommand {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Apart, so that the steps of a large pipeline are smaller by a fifth.
    pub(super) more: Option<Box<RawMore>>,
}

/// What few commands have.
#[derive(Clone, Debug, Default)]
pub(super) struct RawMore {
    pub(super) secrets: Vec<(String, String)>,
    pub(super) cwd: Option<String>,
    pub(super) image: Option<String>,
    pub(super) outputs: Vec<String>,
}

impl JobSpecBuilder {
    /// Begins with the payload of a handler, for encodings other than JSON.
    pub fn handler(payload: Payload) -> Self {
        Self::new(Work::Handler(payload))
    }

    pub(super) fn command(argv: Vec<String>) -> Self {
        Self::new(Work::Command(RawCommand { argv, ..RawCommand::default() }))
    }

    fn new(work: Work) -> Self {
        Self {
            name: None,
            queue: Cow::Borrowed(DEFAULT_QUEUE),
            work,
            resources: Resources::none(),
            priority: Priority::DEFAULT,
            timeout: None,
            retry: None,
            labels: Vec::new(),
            rare: None,
        }
    }

    /// Sets what people call it. Default: the kind of the handler; `command` for a command.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the queue it waits in. Default: `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Cow::Owned(queue.into());
        self
    }

    /// Sets what it needs. Default: nothing but a free slot.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Says whom its jobs have their turns with, beside what it needs.
    pub(crate) fn share(mut self, share: Share) -> Self {
        self.resources = self.resources.share(share);
        self
    }

    /// Sets how urgent it is. Default: 32.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets how long a run may take. Default: without end.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets when it is retried. Default: never.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(Box::new(retry));
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Counts the job against the limit of a key while it is leased.
    pub fn limited_by(mut self, key: impl Into<String>) -> Self {
        self.rare().limit_keys.push(key.into());
        self
    }

    /// Asks for a worker to whose labels a selector applies; several apply together.
    ///
    /// ```
    /// use hodei_core::job::{JobSpec, Selector};
    ///
    /// let spec = JobSpec::command(["train"]).require(Selector::is("zone", "north")).group("training").apart("training");
    /// assert_eq!(spec.build()?.placement().expect("it was said just now").groups_apart(), ["training"]);
    /// # Ok::<(), hodei_core::Error>(())
    /// ```
    pub fn require(self, selector: Selector) -> Self {
        self.place(|place| place.require(selector))
    }

    /// Takes workers first to whose labels a selector applies; where there are several, those to which all of them do, with
    /// those that the rule of its queue prefers.
    pub fn prefer(self, selector: Selector) -> Self {
        self.place(|place| place.prefer(selector))
    }

    /// Makes the job one of a group of its tenant's, for those who want to be beside it or apart from it. See [`Placement`].
    pub fn group(self, group: impl Into<String>) -> Self {
        self.place(|place| place.group(group))
    }

    /// Asks for a worker on which a job of a group is; of several groups, one of each. Where the job is of that group itself
    /// and no other one of it is on any worker of a dispatcher, it may begin anywhere there.
    pub fn beside(self, group: impl Into<String>) -> Self {
        self.place(|place| place.beside(group))
    }

    /// Takes workers first on which a job of a group is; of several groups, one of each.
    pub fn prefer_beside(self, group: impl Into<String>) -> Self {
        self.place(|place| place.prefer_beside(group))
    }

    /// Keeps the job apart from those of a group: it never comes to a worker on which one of them is, and none of them comes
    /// to its worker. A job that is of the group itself shares no worker with the others.
    pub fn apart(self, group: impl Into<String>) -> Self {
        self.place(|place| place.apart(group))
    }

    fn place(mut self, more: impl FnOnce(Placement) -> Placement) -> Self {
        let rare = self.rare();
        rare.placement = more(std::mem::take(&mut rare.placement));
        self
    }

    /// Has the job run in its turn: the jobs of a tenant that name the same key run one after the other, in the order in
    /// which they were submitted. The next one starts when the one before has ended for good, after all its retries, and no
    /// matter how it ended. It is the label [`JobSpec::SEQUENCE`], so lists show it; the last key that is given counts.
    ///
    /// A limit ([`JobSpecBuilder::limited_by`]) bounds how many run at once and keeps no order: a job that waits for its
    /// retry lets others by.
    ///
    /// ```
    /// use hodei_core::job::JobSpec;
    ///
    /// let spec = JobSpec::command(["bill", "--customer", "7"]).sequence("customer-7").build()?;
    /// assert_eq!(spec.sequence(), Some("customer-7"));
    /// # Ok::<(), hodei_core::Error>(())
    /// ```
    pub fn sequence(mut self, key: impl Into<String>) -> Self {
        self.labels.retain(|(name, _)| name != JobSpec::SEQUENCE);
        self.label(JobSpec::SEQUENCE, key)
    }

    /// Says how long a run takes, as far as you know: a hint, no limit. Steps of a pipeline on which the longest way to its
    /// end still depends come first, and a job that is known to end in time may run on a worker that is kept for a larger
    /// one. A limit ([`JobSpecBuilder::timeout`]) says the second too. It is the label [`JobSpec::LASTS`].
    pub fn lasts(mut self, duration: Duration) -> Self {
        self.labels.retain(|(name, _)| name != JobSpec::LASTS);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.label(JobSpec::LASTS, micros.to_string())
    }

    /// Returns what [`JobSpecBuilder::lasts`] was told.
    pub(crate) fn told_to_last(&self) -> Option<Duration> {
        lasts_of(&self.labels.iter().find(|(name, _)| name == JobSpec::LASTS)?.1)
    }

    /// Adds an environment entry; for commands.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.on_command("env", |command| command.env.push((name.into(), value.into())))
    }

    /// Adds an environment entry whose value is a secret, by its reference; for commands.
    pub fn secret(self, name: impl Into<String>, reference: impl Into<String>) -> Self {
        self.on_command("secrets", |command| command.more().secrets.push((name.into(), reference.into())))
    }

    /// Sets the directory to run in; for commands.
    pub fn cwd(self, directory: impl Into<String>) -> Self {
        self.on_command("cwd", |command| command.more().cwd = Some(directory.into()))
    }

    /// Sets the image to run in; for commands.
    pub fn image(self, image: impl Into<String>) -> Self {
        self.on_command("image", |command| command.more().image = Some(image.into()))
    }

    /// Adds a name that the command must write to its output file.
    pub fn output(self, name: impl Into<String>) -> Self {
        self.on_command("outputs", |command| command.more().outputs.push(name.into()))
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn on_command(mut self, field: &'static str, set: impl FnOnce(&mut RawCommand)) -> Self {
        match &mut self.work {
            Work::Command(command) => set(command),
            Work::Handler(_) => self.rare().misplaced.push(field),
        }
        self
    }

    /// Checks everything against the default limits and makes the spec.
    ///
    /// # Errors
    ///
    /// `Invalid` with every fault found.
    pub fn build(self) -> Result<JobSpec> {
        self.build_within(&SpecLimits::default())
    }

    /// Checks everything against the limits given and makes the spec.
    ///
    /// # Errors
    ///
    /// `Invalid` with every fault found.
    pub fn build_within(self, limits: &SpecLimits) -> Result<JobSpec> {
        let faults = self.faults(limits);
        if faults.is_empty() { self.build_checked() } else { Err(Error::invalid("spec.build", faults)) }
    }

    /// Returns everything that is wrong.
    pub(crate) fn faults(&self, limits: &SpecLimits) -> Vec<Fault> {
        validate::faults(self, limits)
    }

    /// Makes the spec of parts that nothing is wrong with.
    pub(crate) fn build_checked(self) -> Result<JobSpec> {
        self.pack().map(JobSpec::of_valid_parts)
    }

    /// Returns what people will call it, where that was said.
    pub(crate) fn given_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Packs parts that [`validate::faults`] found nothing wrong with.
    fn pack(self) -> Result<SpecParts> {
        let nul = |field: &'static str| Error::invalid("spec.build", vec![Fault::new(field, "nul")]);
        let text = |name: Option<String>| name.map(|name| Name::of_checked(&name));
        let (name, payload) = match self.work {
            Work::Handler(payload) => {
                let Payload::Handler { kind, .. } = &payload else {
                    return Err(Error::invalid("spec.build", vec![Fault::new("payload", "not_handler")]));
                };
                (text(self.name).unwrap_or_else(|| kind.clone()), payload)
            }
            Work::Command(command) => {
                let name = text(self.name).unwrap_or_else(|| Name::literal("command"));
                (name, Payload::Command(command.pack().ok_or_else(|| nul("command"))?))
            }
        };
        let placement = self.rare.as_ref().map(|rare| &rare.placement).filter(|place| !place.is_anywhere());
        let resources = match placement {
            Some(placement) => self.resources.placed(placement),
            None => self.resources,
        };
        Ok(SpecParts {
            name,
            queue: queue(&self.queue),
            payload,
            resources,
            priority: self.priority,
            timeout: self.timeout,
            retry: self.retry,
            labels: TextMap::of_pairs(&self.labels).ok_or_else(|| nul("labels"))?,
            limit_keys: match self.rare {
                Some(rare) => Texts::of_slice(&rare.limit_keys).ok_or_else(|| nul("limit_keys"))?,
                None => Texts::default(),
            },
        })
    }
}

/// Makes the name of a queue, which was checked; that of most jobs is shared by all of them.
fn queue(text: &str) -> Name {
    static DEFAULT: LazyLock<Name> = LazyLock::new(|| Name::literal(DEFAULT_QUEUE));
    if text == DEFAULT_QUEUE { DEFAULT.clone() } else { Name::of_checked(text) }
}

impl RawCommand {
    fn more(&mut self) -> &mut RawMore {
        self.more.get_or_insert_default()
    }

    fn pack(self) -> Option<Command> {
        Some(Command {
            argv: Texts::of_slice(&self.argv)?,
            env: TextMap::of_pairs(&self.env)?,
            more: match self.more {
                Some(more) => Some(Box::new(more.pack()?)),
                None => None,
            },
        })
    }
}

impl RawMore {
    fn pack(self) -> Option<CommandMore> {
        Some(CommandMore {
            secrets: TextMap::of_pairs(&self.secrets)?,
            cwd: self.cwd.map(String::into_boxed_str),
            image: self.image.map(String::into_boxed_str),
            outputs: Texts::of_slice(&self.outputs)?,
        })
    }
}
