//! The registrations of every tenant in memory, as the watch and our own writes showed them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::sync::Notify;

use super::record::Record;

/// Namespace and object name.
pub type Key = (String, String);

/// See the module text.
#[derive(Default)]
pub struct Mirror {
    records: RwLock<Records>,
    /// Who waits for a record to change. Few: only requests that were just written.
    waiting: Mutex<HashMap<Key, Weak<Notify>>>,
}

#[derive(Default)]
struct Records {
    by_name: HashMap<String, HashMap<String, Arc<Record>>>,
    /// Registrations of each Enrollment, by its uid.
    counts: HashMap<String, u32>,
}

impl Mirror {
    /// The record of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Record>> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.by_name.get(namespace)?.get(name).cloned()
    }

    /// How many registrations are known.
    pub fn len(&self) -> usize {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.by_name.values().map(HashMap::len).sum()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many registrations came through the Enrollment of that uid.
    pub fn count(&self, enrollment: &str) -> u32 {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.counts.get(enrollment).copied().unwrap_or_default()
    }

    /// Takes up a record, unless a newer one is known: our own writes overtake the watch.
    pub fn apply(&self, namespace: &str, record: Arc<Record>) {
        let name = record.name.clone();
        {
            let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
            if records
                .find(namespace, &name)
                .is_some_and(|known| known.is_newer_than(&record))
            {
                return;
            }
            records.insert(namespace, record);
        }
        self.wake(namespace, &name);
    }

    /// Forgets a record that was deleted.
    pub fn remove(&self, namespace: &str, record: &Record) {
        {
            let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
            if records
                .find(namespace, &record.name)
                .is_some_and(|known| known.uid != record.uid)
            {
                return;
            }
            records.take(namespace, &record.name);
        }
        self.wake(namespace, &record.name);
    }

    /// Takes the full list, of one namespace or of all.
    pub fn replace(&self, of: Option<&str>, all: Vec<(String, Record)>) {
        {
            let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
            match of {
                None => *records = Records::default(),
                Some(namespace) => {
                    for record in records
                        .by_name
                        .remove(namespace)
                        .unwrap_or_default()
                        .into_values()
                    {
                        records.uncount(&record);
                    }
                }
            }
            for (namespace, record) in all {
                records.insert(&namespace, Arc::new(record));
            }
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|waiter| waiter.notify_waiters());
    }

    /// Resolves once `is_it` holds for the record of that name, or its absence.
    pub async fn until(
        &self,
        namespace: &str,
        name: &str,
        is_it: impl Fn(Option<&Record>) -> bool,
    ) -> Option<Arc<Record>> {
        let waiter = self.waiter(namespace, name);
        loop {
            // Enlisted before looking, so that no change falls between the two.
            let changed = waiter.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let record = self.get(namespace, name);
            if is_it(record.as_deref()) {
                return record;
            }
            changed.await;
        }
    }

    fn waiter(&self, namespace: &str, name: &str) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() > 1024 {
            waiting.retain(|_, waiter| waiter.strong_count() > 0);
        }
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(waiter) = waiting.get(&key).and_then(Weak::upgrade) {
            return waiter;
        }
        let waiter = Arc::new(Notify::new());
        waiting.insert(key, Arc::downgrade(&waiter));
        waiter
    }

    fn wake(&self, namespace: &str, name: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        let key = (namespace.to_owned(), name.to_owned());
        match waiting.get(&key).map(Weak::upgrade) {
            Some(Some(waiter)) => waiter.notify_waiters(),
            Some(None) => drop(waiting.remove(&key)),
            None => {}
        }
    }
}

impl Records {
    fn find(&self, namespace: &str, name: &str) -> Option<&Record> {
        self.by_name.get(namespace)?.get(name).map(Arc::as_ref)
    }

    fn insert(&mut self, namespace: &str, record: Arc<Record>) {
        self.take(namespace, &record.name);
        if let Some(request) = &record.request {
            *self
                .counts
                .entry(request.enrollment.uid.clone())
                .or_default() += 1;
        }
        if !self.by_name.contains_key(namespace) {
            self.by_name.insert(namespace.to_owned(), HashMap::new());
        }
        if let Some(records) = self.by_name.get_mut(namespace) {
            records.insert(record.name.clone(), record);
        }
    }

    fn take(&mut self, namespace: &str, name: &str) {
        let taken = self
            .by_name
            .get_mut(namespace)
            .and_then(|records| records.remove(name));
        if let Some(record) = taken {
            self.uncount(&record);
        }
    }

    fn uncount(&mut self, record: &Record) {
        let Some(request) = &record.request else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&request.enrollment.uid) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&request.enrollment.uid);
            }
        }
    }
}
