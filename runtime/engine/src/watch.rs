//! The two threads that act on their own: one takes note of exits, the other does what is scheduled.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use keel_spec::control::Event;

use crate::engine::Engine;
use crate::parent::{Events, InitLink};
use crate::schedule::Job;

/// Pause before PID 1 is asked again after it didn't answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Starts both. They end when the engine is dropped.
pub fn start(engine: &Arc<Engine>, events: Box<dyn Events>) -> io::Result<()> {
    let (weak, link) = (Arc::downgrade(engine), engine.link.clone());
    let builder = || std::thread::Builder::new().stack_size(512 * 1024);
    builder().name("exits".into()).spawn(move || watch_exits(&weak, &link, events))?;
    let (weak, schedule) = (Arc::downgrade(engine), engine.schedule.clone());
    builder().name("schedule".into()).spawn(move || {
        loop {
            let jobs = schedule.next();
            let Some(engine) = weak.upgrade().filter(|_| !jobs.is_empty()) else { return };
            std::thread::scope(|scope| {
                for job in &jobs {
                    // One job needs no further thread.
                    if jobs.len() == 1 {
                        engine.run_job(job);
                    } else {
                        scope.spawn(|| engine.run_job(job));
                    }
                }
            });
        }
    })?;
    Ok(())
}

fn watch_exits(engine: &Weak<Engine>, link: &Arc<dyn InitLink>, mut events: Box<dyn Events>) {
    loop {
        let event = events.next();
        let Some(engine) = engine.upgrade() else { return };
        match event {
            Ok(Event::Exited(adopted)) => engine.exited(&adopted),
            Ok(Event::ShuttingDown(_)) => {
                // On a thread of its own: it waits for exits, which this one takes note of.
                let spawned = std::thread::Builder::new().name("shutdown".into()).spawn(move || engine.shutdown());
                if let Err(error) = spawned {
                    ::log::error!("containers cannot be stopped in order: {error}");
                }
            }
            Err(error) => {
                ::log::warn!("{}; subscribing again", error.chain());
                std::thread::sleep(RETRY_PAUSE);
                match link.subscribe() {
                    Ok(fresh) => {
                        events = fresh;
                        engine.collect_exits();
                    }
                    Err(error) => ::log::error!("{}", error.chain()),
                }
            }
        }
    }
}

impl Engine {
    /// Takes note of exits that no event told of.
    pub(crate) fn collect_exits(&self) {
        match self.link.adopted() {
            Ok(all) => all.iter().filter(|adopted| adopted.exit.is_some()).for_each(|adopted| self.exited(adopted)),
            Err(error) => ::log::error!("{}", error.chain()),
        }
    }

    fn run_job(self: &Arc<Self>, job: &Job) {
        match job {
            Job::Check(id, run) => self.check_health(id, *run),
            Job::Start(id) => self.start_by_policy(id),
            Job::Remove(id) => {
                if let Some(container) = self.get(id)
                    && let Err(error) = self.remove_held(&container, true)
                {
                    ::log::error!("container {id}: cannot be removed: {}", error.chain());
                }
            }
        }
    }

    /// Stops all containers for the host's shutdown; restart policies bring them back at the next boot.
    pub fn shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
        let running: Vec<_> = self.all().into_iter().filter(|container| container.state().is_running()).collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..running.len().min(16) {
                scope.spawn(|| {
                    while let Some(container) = running.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.stop_running(container, None, None) {
                            ::log::error!("container {}: {}", container.id, error.chain());
                        }
                    }
                });
            }
        });
        *self.down.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.down.1.ring();
    }
}
