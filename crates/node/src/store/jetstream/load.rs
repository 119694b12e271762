//! Loading: one consumer reads all sections, or those that are asked for if they are few.

use std::collections::HashSet;

use async_nats::Message;
use bytes::Bytes;

use super::answer::is_marker;
use super::consumer::Consumer;
use super::form::{one_record, Form, Manifest};
use super::store::JetStreamStore;
use super::subject::Nonce;
use crate::store::{Section, Sink, StoreError};

/// Up to so many sections are read by consumers that get nothing else. Beyond it all is read.
const FEW: usize = 256;
/// As many where a consumer has one filter only, and looks at the whole stream when it is made.
const FEW_BEFORE_2_10: usize = 4;

/// Consumers, each on a server of the bucket that NATS chooses, until one is not behind the others.
const ATTEMPTS: usize = 3;

/// A record that is in parts.
struct Large {
    section: Section,
    subject: String,
    manifest: Manifest,
}

impl JetStreamStore {
    pub(super) async fn load_all(&self, sections: &[Section], sink: Sink<'_>) -> Result<(), StoreError> {
        self.link.ready().await?;
        let wanted: HashSet<Section> = sections.iter().copied().collect();
        let mut in_use: HashSet<Nonce> = HashSet::new();
        for (subjects, end) in self.groups(sections) {
            let large = self
                .read(&subjects, end, sink, &|section| wanted.contains(&section))
                .await?;
            in_use.extend(large.iter().map(|large| large.manifest.nonce));
            let wanted = large.into_iter().filter(|large| wanted.contains(&large.section));
            self.show_large(wanted.collect(), sink).await?;
        }
        // Where one section is read that is all there is time for.
        if sections.len() > 1 {
            if let Err(error) = self.sweep(&wanted, &in_use).await {
                tracing::debug!(%error, "cannot sweep the parts that no record refers to");
            }
        }
        Ok(())
    }

    /// What one consumer each reads, and what it ends with.
    fn groups(&self, sections: &[Section]) -> Vec<(Vec<String>, String)> {
        let has_filters = self.link.is_at_least([2, 10, 0]);
        if sections.len() > if has_filters { FEW } else { FEW_BEFORE_2_10 } {
            return vec![(vec![self.subjects.all()], self.subjects.end(Section::HEAD))];
        }
        let groups = sections.chunks(if has_filters { FEW } else { 1 }).map(|sections| {
            let subjects = sections.iter().map(|section| self.subjects.section(*section));
            (subjects.collect(), self.subjects.end(sections[0]))
        });
        groups.collect()
    }

    /// Shows what has these subjects and is wanted, but for what is in parts: that is returned, wanted or not.
    async fn read(
        &self,
        subjects: &[String],
        end: String,
        sink: Sink<'_>,
        is_wanted: &(dyn Fn(Section) -> bool + Sync),
    ) -> Result<Vec<Large>, StoreError> {
        let mut attempts = ATTEMPTS;
        loop {
            let consumer = Consumer::of(&self.link, &self.bucket, subjects, end.clone());
            let mut consumer = self.link.in_time(consumer).await?;
            let large = self.drain(&mut consumer, sink, is_wanted).await;
            attempts -= 1;
            let tries_again = consumer.is_behind() && attempts > 0;
            // One that does not answer is left: it goes by itself.
            if large.is_ok() || tries_again {
                consumer.close().await;
            }
            if !tries_again {
                return large;
            }
        }
    }

    async fn drain(
        &self,
        consumer: &mut Consumer<'_>,
        sink: Sink<'_>,
        is_wanted: &(dyn Fn(Section) -> bool + Sync),
    ) -> Result<Vec<Large>, StoreError> {
        let mut large = Vec::new();
        while let Some(message) = consumer.next().await? {
            let Some(section) = self.subjects.section_of(&message.subject) else {
                continue;
            };
            match form_of(&message) {
                Some(Form::Whole(bytes)) if is_wanted(section) => show(section, &bytes, sink),
                Some(Form::InParts(manifest)) => large.push(Large {
                    section,
                    subject: message.subject.to_string(),
                    manifest,
                }),
                _ => {}
            }
        }
        Ok(large)
    }

    /// One after the other: each may be large.
    async fn show_large(&self, large: Vec<Large>, sink: Sink<'_>) -> Result<(), StoreError> {
        for large in large {
            if let Some(bytes) = self.whole_of(&large).await? {
                show(large.section, &bytes, sink);
            }
        }
        Ok(())
    }

    /// The bytes of a record that is in parts, or of what has replaced it meanwhile. `None` if it is gone, or not whole.
    async fn whole_of(&self, large: &Large) -> Result<Option<Bytes>, StoreError> {
        let mut manifest = large.manifest.clone();
        loop {
            if let Some(bytes) = self.assembled(large.section, &manifest).await? {
                return Ok(Some(bytes));
            }
            match self.held(&large.subject).await?.and_then(|held| held.form) {
                Some(Form::Whole(bytes)) => return Ok(Some(bytes)),
                Some(Form::InParts(newer)) if newer != manifest => manifest = newer,
                _ => return Ok(None),
            }
        }
    }
}

fn form_of(message: &Message) -> Option<Form> {
    match is_marker(message.headers.as_ref()) {
        true => None,
        false => Form::read(&message.payload),
    }
}

fn show(section: Section, bytes: &[u8], sink: Sink<'_>) {
    if let Some(record) = one_record(bytes) {
        sink(section, record);
    }
}
