//! A node with the words that name it, so that every complaint about it says what and where.

use std::ops::RangeInclusive;

use crate::{
    error::{Fault, bare, quoted},
    name,
    scalar::{self, ScalarKind},
    tree::{Content, Node, NodeId, Tree},
};

/// A value of the file, and its name in messages.
#[derive(Clone, Debug)]
pub(crate) struct Value<'t> {
    tree: &'t Tree<'t>,
    node: &'t Node<'t>,
    label: String,
}

impl<'t> Value<'t> {
    pub(crate) fn new(tree: &'t Tree<'t>, id: NodeId, label: impl Into<String>) -> Self {
        Self { tree, node: tree.node(id), label: label.into() }
    }

    pub(crate) fn line(&self) -> u64 {
        self.node.line
    }

    pub(crate) fn relabel(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// The label of a part of this value.
    pub(crate) fn labelled(&self, part: &str) -> String {
        format!("{}: {part}", self.label)
    }

    /// The label and the end of a sentence about it.
    pub(crate) fn described(&self, wrong: &str) -> String {
        format!("{} {wrong}", self.label)
    }

    /// What is wrong with the value, at its line.
    pub(crate) fn fault(&self, wrong: impl AsRef<str>) -> Fault {
        Fault::at(self.line(), self.described(wrong.as_ref()))
    }

    /// The value is not of the type that it must be.
    pub(crate) fn wrong_type(&self, expected: &str) -> Fault {
        self.fault(format!("must be {expected}, not {}", self.describe()))
    }

    pub(crate) fn above(&self, count: usize, things: &str, most: usize) -> Fault {
        self.fault(format!("has {count} {things}, above the limit of {most}"))
    }

    pub(crate) fn string(&self) -> Result<&'t str, Fault> {
        match self.scalar() {
            Some((text, ScalarKind::String)) => Ok(text),
            Some((text, ScalarKind::Boolean | ScalarKind::Integer | ScalarKind::Float)) => {
                let hint = format!("a string, not {}; quote it: \"{}\"", self.describe(), bare(text));
                Err(self.fault(format!("must be {hint}")))
            }
            Some((_, ScalarKind::Null)) | None => Err(self.wrong_type("a string")),
        }
    }

    /// A string that is a name.
    pub(crate) fn name(&self) -> Result<&'t str, Fault> {
        let text = self.string()?;
        if !name::is_name(text) {
            return Err(self.fault(format!("{} is not a name: {}", quoted(text), name::NAME_RULE)));
        }
        Ok(text)
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, Fault> {
        let value = match self.scalar() {
            Some((text, ScalarKind::Integer)) => text.parse().ok().filter(|value| range.contains(value)),
            _ => None,
        };
        let expected = || format!("an integer from {} to {}", range.start(), range.end());
        value.ok_or_else(|| self.wrong_type(&expected()))
    }

    /// A quantity: a number or a string that `read` understands.
    pub(crate) fn quantity<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Fault> {
        let (text, shown) = match self.scalar() {
            Some((text, ScalarKind::Integer | ScalarKind::Float)) => (text, bare(text)),
            Some((text, ScalarKind::String)) => (text, quoted(text)),
            Some((_, ScalarKind::Null | ScalarKind::Boolean)) | None => return Err(self.wrong_type(expected)),
        };
        read(text).map_err(|wrong| self.fault(format!("{shown} {wrong}")))
    }

    /// The items of a list, each under the label `label: item N` with N from 1.
    pub(crate) fn items(&self, expected: &str) -> Result<Vec<Self>, Fault> {
        let items = self.list().ok_or_else(|| self.wrong_type(expected))?;
        let labels = (1..).map(|ordinal| self.labelled(&format!("item {ordinal}")));
        Ok(items.iter().zip(labels).map(|(&id, label)| Value::new(self.tree, id, label)).collect())
    }

    /// The items of a list as they are; none if it is no list.
    pub(crate) fn list(&self) -> Option<&'t [NodeId]> {
        match &self.node.content {
            Content::List(items) => Some(items),
            Content::Scalar { .. } | Content::Map(_) => None,
        }
    }

    /// The entries of a mapping, whose values have no label yet.
    pub(crate) fn entries(&self, expected: &str) -> Result<Vec<Entry<'t>>, Fault> {
        let Content::Map(entries) = &self.node.content else {
            return Err(self.wrong_type(expected));
        };
        let entry = |&(key, value): &(NodeId, NodeId)| {
            let line = self.tree.node(key).line;
            Entry { key: self.tree.text(key), line, value: Value::new(self.tree, value, "") }
        };
        Ok(entries.iter().map(entry).collect())
    }

    fn scalar(&self) -> Option<(&'t str, ScalarKind)> {
        match &self.node.content {
            Content::Scalar { text, plain } => Some((text, scalar::resolve(text, *plain))),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    fn describe(&self) -> String {
        match &self.node.content {
            Content::Scalar { text, plain } => scalar::describe(text, *plain),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// One key of a mapping with its line and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'t> {
    pub(crate) key: &'t str,
    pub(crate) line: u64,
    pub(crate) value: Value<'t>,
}

/// A mapping whose keys are all known fields.
#[derive(Debug)]
pub(crate) struct Fields<'t> {
    entries: Vec<Entry<'t>>,
}

impl<'t> Fields<'t> {
    /// Checks the keys; `owner` is who has the fields (`the file`) and `prefix` begins a field's label.
    pub(crate) fn known(
        mut entries: Vec<Entry<'t>>,
        owner: &str,
        prefix: &str,
        known: &[&str],
    ) -> Result<Self, Fault> {
        for entry in &mut entries {
            if !known.contains(&entry.key) {
                let hint = name::suggestion(entry.key, known.iter().copied());
                let hint = hint.unwrap_or_else(|| format!("; the fields are {}", known.join(", ")));
                return Err(Fault::at(
                    entry.line,
                    format!("{owner} has the unknown field {}{hint}", quoted(entry.key)),
                ));
            }
            entry.value.relabel(format!("{prefix}{}", entry.key));
        }
        Ok(Self { entries })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<'t>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}
