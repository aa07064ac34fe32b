//! The thread that writes: whole jobs in, fates out.
//!
//! ```text
//! publish ─▶ job ─▶ ┐                       ┌ file a: one write, one sync ┐
//! publish ─▶ job ─▶ ┼ all that wait, by file ┤                             ├─▶ one outcome per record, per job
//! publish ─▶ job ─▶ ┘                       └ file b: one write, one sync ┘
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use viaduct_sink::outcome::Position;
use viaduct_sink::{
    Fatal, HealthReporter, Outcome, Receipt, Record, Refusal, RejectReason, Rejection, Retry,
};

use crate::file::{LineFile, make_dir};
use crate::settings::FileSettings;
use crate::{line, name};

/// How many bytes of waiting jobs are taken together.
const TOGETHER: usize = 8 * 1024 * 1024;
/// How long to wait before the next try.
const SOON: Duration = Duration::from_millis(500);

/// The records of one publish. The answer has one entry per record; `None`: the directory or its disk is away.
struct Job {
    records: Vec<Record>,
    answer: oneshot::Sender<Vec<Option<Outcome>>>,
}

/// The thread's handle.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(settings: FileSettings, health: HealthReporter) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("viaduct-files".to_owned()).spawn(move || {
            let mut files = Files { settings, open: HashMap::new(), clock: 0 };
            match make_dir(&files.settings.dir) {
                Ok(()) => health.up(),
                Err(error) => health.down(failure(&files.settings.dir.display().to_string(), &error)),
            }
            run(waiting, &mut files, &health);
            health.down("closed");
            // The files' locks go before anybody hears that the thread ended.
            drop(files);
            let _ = end.send(());
        })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), ended: Mutex::new(Some(ended)) })
    }

    /// Has the records written, and those that could not be because the directory or its disk is away again and again,
    /// in their order. They are all that is left of their destinations, so that nothing overtakes them.
    pub(crate) async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        let mut fates: Vec<Option<Outcome>> = vec![None; records.len()];
        loop {
            let open: Vec<usize> = (0..records.len()).filter(|index| fates[*index].is_none()).collect();
            if open.is_empty() {
                return fates.into_iter().flatten().collect();
            }
            let answers = self.try_once(open.iter().map(|index| records[*index].clone()).collect()).await;
            let mut away = false;
            for (index, answer) in open.into_iter().zip(answers) {
                away |= answer.is_none();
                fates[index] = answer;
            }
            if away {
                tokio::time::sleep(SOON).await;
            }
        }
    }

    async fn try_once(&self, records: Vec<Record>) -> Vec<Option<Outcome>> {
        let count = records.len();
        let (answer, fates) = oneshot::channel();
        let Some(jobs) = self.jobs.lock().await.clone() else {
            return vec![Some(retry("closed", "the sink was closed".to_owned(), None)); count];
        };
        let sent = jobs.send(Job { records, answer });
        drop(jobs);
        let fates = match sent {
            Ok(()) => fates.await.ok(),
            Err(_) => None,
        };
        let gone = || Outcome::Fatal(Fatal::Broken("the writing thread is gone".to_owned()));
        fates.unwrap_or_else(|| vec![Some(gone()); count])
    }

    /// Lets the thread finish what it has and waits for its end.
    pub(crate) async fn close(&self) {
        drop(self.jobs.lock().await.take());
        if let Some(ended) = self.ended.lock().await.take() {
            // An error means that the thread ended by a panic: ended all the same.
            let _ = ended.await;
        }
    }
}

fn run(mut waiting: mpsc::UnboundedReceiver<Job>, files: &mut Files, health: &HealthReporter) {
    while let Some(job) = waiting.blocking_recv() {
        let size = |job: &Job| job.records.iter().map(|record| record.value.len()).sum::<usize>();
        let mut bytes = size(&job);
        let mut jobs = vec![job];
        while bytes < TOGETHER
            && let Ok(job) = waiting.try_recv()
        {
            bytes += size(&job);
            jobs.push(job);
        }
        work(jobs, files, health);
    }
}

/// Writes some jobs and answers them.
fn work(jobs: Vec<Job>, files: &mut Files, health: &HealthReporter) {
    let records: Vec<&Record> = jobs.iter().flat_map(|job| &job.records).collect();
    let mut fates: Vec<Option<Outcome>> = vec![None; records.len()];
    let mut order: Vec<Group> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let rotating = files.settings.rotate_bytes.is_some();
    for (index, record) in records.iter().enumerate() {
        if let Some(fault) = name::fault(&record.destination, rotating) {
            let reason = RejectReason::InvalidDestination;
            fates[index] = Some(Outcome::Rejected(Rejection { reason, detail: fault.to_owned() }));
            continue;
        }
        let place = *places.entry(&record.destination).or_insert(order.len());
        if place == order.len() {
            order.push(Group { destination: record.destination.clone(), records: Vec::new() });
        }
        order[place].records.push(index);
    }
    let (mut went_well, mut trouble) = (false, None);
    for group in order {
        let (done, error) = files.write(&group, &records);
        went_well |= !done.is_empty();
        for (index, end) in group.records.iter().zip(&done) {
            fates[*index] = Some(Outcome::Confirmed(Receipt::attest(Position::File { end: *end })));
        }
        if let Some(error) = error {
            let detail = failure(&name::active(&group.destination), &error);
            for index in &group.records[done.len()..] {
                fates[*index] = classify(&error, detail.clone());
            }
            trouble = Some(detail);
        }
    }
    match trouble {
        Some(reason) => health.down(reason),
        None if went_well => health.up(),
        None => {}
    }
    let mut fates = fates.into_iter();
    for job in jobs {
        let count = job.records.len();
        // Nobody waits any more: the batch was abandoned.
        let _ = job.answer.send(fates.by_ref().take(count).collect());
    }
}

/// What goes to one file, as indices into the records of the jobs at hand.
struct Group {
    destination: Arc<str>,
    records: Vec<usize>,
}

/// The open files.
struct Files {
    settings: FileSettings,
    open: HashMap<Arc<str>, Open>,
    /// Counts uses, to know which file was not used for longest.
    clock: u64,
}

struct Open {
    file: LineFile,
    used: u64,
}

impl Files {
    /// Writes a group's lines and gives where each line that is durable now ends, from the first on, and the error that
    /// kept the others back.
    fn write(&mut self, group: &Group, records: &[&Record]) -> (Vec<u64>, Option<io::Error>) {
        let mut ends = Vec::with_capacity(group.records.len());
        while ends.len() < group.records.len() {
            let rest = &group.records[ends.len()..];
            match self.write_some(&group.destination, rest, records, &mut ends) {
                Ok(()) => {}
                Err(error) => {
                    self.open.remove(&group.destination);
                    return (ends, Some(error));
                }
            }
        }
        (ends, None)
    }

    /// Writes as many lines as fit into the destination's present file, at least one.
    fn write_some(
        &mut self,
        destination: &Arc<str>,
        rest: &[usize],
        records: &[&Record],
        ends: &mut Vec<u64>,
    ) -> io::Result<()> {
        let limit = self.settings.rotate_bytes.unwrap_or(u64::MAX);
        let mut file = self.take(destination)?;
        // The line end counts too.
        if file.size() > 0 && file.size() + records[rest[0]].value.len() as u64 + 1 > limit {
            file.rotate(&self.settings.dir, destination)?;
            file = LineFile::open(&self.settings.dir, destination)?;
        }
        let start = file.size();
        let (mut lines, mut new_ends) = (Vec::new(), Vec::new());
        for index in rest {
            let value = &records[*index].value;
            if !lines.is_empty() && start + (lines.len() + value.len()) as u64 + 1 > limit {
                break;
            }
            line::push(&mut lines, value);
            new_ends.push(start + lines.len() as u64);
        }
        file.append(&lines)?;
        self.keep(destination, file);
        ends.append(&mut new_ends);
        Ok(())
    }

    /// The destination's file, open, whole and in its place.
    fn take(&mut self, destination: &Arc<str>) -> io::Result<LineFile> {
        match self.open.remove(destination) {
            Some(open) if open.file.is_in_place() => Ok(open.file),
            // Dropped before the file of that name is opened again: its lock would be in the way.
            other => {
                drop(other);
                LineFile::open(&self.settings.dir, destination)
            }
        }
    }

    fn keep(&mut self, destination: &Arc<str>, file: LineFile) {
        self.clock += 1;
        self.open.insert(destination.clone(), Open { file, used: self.clock });
        if self.open.len() > self.settings.open_files
            && let Some(oldest) =
                self.open.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone())
        {
            self.open.remove(&oldest);
        }
    }
}

fn failure(what: &str, error: &io::Error) -> String {
    format!("cannot write {what}: {error}")
}

/// What an error means for a record; `None`: the directory or its disk is away, which is waited for.
fn classify(error: &io::Error, detail: String) -> Option<Outcome> {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
            Some(retry("full", detail, Some(Refusal::Full)))
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            Some(retry("not_permitted", detail, Some(Refusal::NotPermitted)))
        }
        Kind::IsADirectory => Some(retry("not_a_file", detail, Some(Refusal::Missing))),
        Kind::InvalidFilename => {
            Some(Outcome::Rejected(Rejection { reason: RejectReason::InvalidDestination, detail }))
        }
        _ => None,
    }
}

fn retry(reason: &'static str, detail: String, refusal: Option<Refusal>) -> Outcome {
    Outcome::Retry(Retry { reason, detail, after: SOON, refusal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_can_mend_is_a_refusal() {
        let refusal = |kind: io::ErrorKind| match classify(&kind.into(), String::new()) {
            Some(Outcome::Retry(retry)) => retry.refusal,
            None => None,
            other => panic!("neither refused nor away: {other:?}"),
        };
        assert_eq!(refusal(io::ErrorKind::StorageFull), Some(Refusal::Full));
        assert_eq!(refusal(io::ErrorKind::QuotaExceeded), Some(Refusal::Full));
        assert_eq!(refusal(io::ErrorKind::PermissionDenied), Some(Refusal::NotPermitted));
        assert_eq!(refusal(io::ErrorKind::ReadOnlyFilesystem), Some(Refusal::NotPermitted));
        for away in
            [io::ErrorKind::NotADirectory, io::ErrorKind::StaleNetworkFileHandle, io::ErrorKind::Other]
        {
            assert_eq!(classify(&away.into(), String::new()), None);
        }
    }
}
