//! Mail between reactors: a bounded ring of batches at each receiver, and what waits at each sender.
//!
//! Order holds from one sender to one receiver. A batch costs one push and, if the receiver sleeps, one wake-up. A ring that is full
//! refuses: the batch stays at its sender, in order, and is tried again each turn. So nothing is ever lost here; what bounds the memory is
//! that a shard sheds QoS 0 while [`Post::has_room`] says no, stops reading from publishers whose QoS 1 and 2 messages are unsettled, and that
//! its reactor handles no packets while [`Post::is_crowded`]. Mail is handled all the time, so two that are crowded free each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::ids::ReactorId;
use crate::limits;
use crate::sys::wake::Wake;

/// What one sender has posted in one turn.
#[derive(Debug)]
pub enum Batch<T> {
    /// A letter alone, as most are where little is going on.
    One(T),
    /// Several, in order.
    Many(Vec<T>),
}

impl<T> Batch<T> {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(letters) => letters.len(),
        }
    }

    /// Letters, if they are so many that they are counted.
    fn counted(&self) -> usize {
        let letters = self.len();
        if letters > limits::SMALL_BATCH {
            letters
        } else {
            0
        }
    }
}

/// The receiving side, seen by all reactors.
#[derive(Debug)]
pub struct Mailbox<T> {
    batches: ArrayQueue<Batch<T>>,
    /// How many letters the large ones hold. Small ones are not counted: as many as there may be are few beside the bound, and where little is
    /// going on nobody writes to this line.
    letters: AtomicUsize,
    /// False from when the receiver decides to sleep until somebody wakes it. In a line of its own, as it changes all the time.
    awake: CachePadded<AtomicBool>,
    wake: Wake,
}

impl<T> Mailbox<T> {
    /// An empty one for `batches` at most. Its wake-up must exist before the threads part with their fd table.
    pub fn new(batches: usize, wake: Wake) -> Self {
        Self {
            batches: ArrayQueue::new(batches),
            letters: AtomicUsize::new(0),
            awake: CachePadded::new(AtomicBool::new(true)),
            wake,
        }
    }

    /// What the receiver's poller watches.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Wake the receiver, if it sleeps or is about to.
    pub fn rouse(&self) {
        // Pairs with the fence in `may_sleep`: either we see that it sleeps, or it sees what we have done before.
        fence(Ordering::SeqCst);
        if !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::AcqRel) {
            self.wake.wake().expect("an eventfd can be written");
        }
    }

    /// One letter from somebody who is no reactor. While the mailbox is full it waits, a millisecond at a time and so many at most. False: it is
    /// full still.
    pub fn post(&self, letter: T, millis: u32) -> bool {
        let mut batch = Batch::One(letter);
        for _ in 0..millis {
            match self.push(batch) {
                Ok(()) => return true,
                Err(refused) => batch = refused,
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.push(batch).is_ok()
    }

    fn push(&self, batch: Batch<T>) -> Result<(), Batch<T>> {
        // Counted before it is there, so that the receiver never takes out more than was counted.
        let letters = batch.counted();
        self.count(letters, AtomicUsize::fetch_add);
        if let Err(batch) = self.batches.push(batch) {
            self.count(letters, AtomicUsize::fetch_sub);
            return Err(batch);
        }
        self.rouse();
        Ok(())
    }

    fn count(&self, letters: usize, change: fn(&AtomicUsize, usize, Ordering) -> usize) {
        if letters > 0 {
            change(&self.letters, letters, Ordering::Relaxed);
        }
    }

    /// The oldest batch; for the receiver.
    pub fn take(&self) -> Option<Batch<T>> {
        let batch = self.batches.pop()?;
        self.count(batch.counted(), AtomicUsize::fetch_sub);
        Some(batch)
    }

    /// The receiver is about to sleep. False: mail is here, it must not.
    pub fn may_sleep(&self) -> bool {
        self.awake.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.batches.is_empty() {
            return true;
        }
        self.awake.store(true, Ordering::Relaxed);
        false
    }

    /// The receiver does not sleep: nobody needs to wake it.
    pub fn stay_awake(&self) {
        if !self.awake.load(Ordering::Relaxed) {
            self.awake.store(true, Ordering::Relaxed);
        }
    }
}

/// One reactor's outgoing mail.
#[derive(Debug)]
pub struct Post<T> {
    boxes: Arc<[Mailbox<T>]>,
    /// What waits for each receiver.
    waiting: Vec<Outgoing<T>>,
    /// Receivers for whom something waits.
    touched: Vec<ReactorId>,
    /// Emptied batches of others, to be filled again.
    spare: Vec<Vec<T>>,
    /// Letters that wait, for all receivers together.
    letters: usize,
    /// Batches posted since [`Post::take_posted`] was asked.
    posted: u64,
}

#[derive(Debug)]
struct Outgoing<T> {
    /// Whole batches that the ring refused, oldest first.
    sealed: VecDeque<Batch<T>>,
    /// The batch that is being filled.
    open: Vec<T>,
}

impl<T> Outgoing<T> {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty()
    }

    /// The batch that was being filled, if it has a letter.
    fn close(&mut self, spare: &mut Vec<Vec<T>>) -> Option<Batch<T>> {
        if self.open.len() > 1 {
            let fresh = spare.pop().unwrap_or_default();
            Some(Batch::Many(std::mem::replace(&mut self.open, fresh)))
        } else {
            self.open.pop().map(Batch::One)
        }
    }
}

impl<T> Post<T> {
    /// Lets go of what is kept to be filled again.
    pub fn give_back(&mut self) {
        self.spare = Vec::new();
        for outgoing in &mut self.waiting {
            outgoing.sealed.shrink_to_fit();
            outgoing.open.shrink_to_fit();
        }
    }

    /// Outgoing mail for the receivers of `boxes`.
    pub fn new(boxes: Arc<[Mailbox<T>]>) -> Self {
        let waiting = boxes
            .iter()
            .map(|_| Outgoing {
                sealed: VecDeque::new(),
                open: Vec::new(),
            })
            .collect();
        Self {
            boxes,
            waiting,
            touched: Vec::new(),
            spare: Vec::new(),
            letters: 0,
            posted: 0,
        }
    }

    /// Post one letter. It leaves with this turn's batch.
    pub fn post(&mut self, to: ReactorId, mail: T) {
        let outgoing = &mut self.waiting[to.index()];
        if outgoing.is_empty() {
            self.touched.push(to);
        }
        outgoing.open.push(mail);
        self.letters += 1;
        // A batch stays small enough to be handled in a turn.
        if outgoing.open.len() >= limits::MAIL_BATCH {
            let batch = outgoing.close(&mut self.spare);
            outgoing.sealed.extend(batch);
            self.offer(to);
        }
    }

    /// False while so much waits for a receiver, there and here, that what can be shed should be.
    pub fn has_room(&self, to: ReactorId) -> bool {
        self.boxes[to.index()].letters.load(Ordering::Relaxed) < limits::MAILBOX_LETTERS
            && self.waiting[to.index()].sealed.len() < limits::POST_BACKLOG / limits::MAIL_BATCH
    }

    /// True while so much waits, over all receivers, that nothing should be done that may lead to more.
    pub fn is_crowded(&self) -> bool {
        self.letters >= limits::POST_LETTERS
    }

    /// Send every batch that its ring takes. True: some wait.
    pub fn flush(&mut self) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|&to| {
            self.offer(to);
            let outgoing = &mut self.waiting[to.index()];
            // While older mail waits the open batch goes on filling: batches stay few and large.
            if !outgoing.sealed.is_empty() {
                return true;
            }
            let Some(batch) = outgoing.close(&mut self.spare) else {
                return false;
            };
            let letters = batch.len();
            match self.boxes[to.index()].push(batch) {
                Ok(()) => {
                    self.letters -= letters;
                    self.posted += 1;
                    false
                }
                Err(batch) => {
                    outgoing.sealed.push_back(batch);
                    true
                }
            }
        });
        self.touched = touched;
        !self.touched.is_empty()
    }

    /// Takes an emptied batch, to fill it again. A few are kept, and no large one.
    pub fn reuse(&mut self, batch: Vec<T>) {
        debug_assert!(batch.is_empty());
        if self.spare.len() < limits::SPARE_BATCHES && batch.capacity() <= limits::SPARE_LETTERS {
            self.spare.push(batch);
        }
    }

    /// Batches posted since it was asked last.
    pub fn take_posted(&mut self) -> u64 {
        std::mem::take(&mut self.posted)
    }

    fn offer(&mut self, to: ReactorId) {
        let outgoing = &mut self.waiting[to.index()];
        while let Some(batch) = outgoing.sealed.pop_front() {
            let letters = batch.len();
            if let Err(batch) = self.boxes[to.index()].push(batch) {
                outgoing.sealed.push_front(batch);
                return;
            }
            self.letters -= letters;
            self.posted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(n: usize, batches: usize) -> Arc<[Mailbox<u32>]> {
        (0..n)
            .map(|_| Mailbox::new(batches, Wake::new().unwrap()))
            .collect()
    }

    const TO: ReactorId = ReactorId(1);

    fn receive(mailbox: &Mailbox<u32>, got: &mut Vec<u32>) {
        while let Some(batch) = mailbox.take() {
            assert!(batch.len() <= limits::MAIL_BATCH);
            match batch {
                Batch::One(letter) => got.push(letter),
                Batch::Many(letters) => got.extend(letters),
            }
        }
    }

    #[test]
    fn a_full_ring_delays_mail_and_keeps_its_order() {
        let boxes = boxes(2, 2);
        let mut post = Post::new(Arc::clone(&boxes));
        let many = (limits::POST_BACKLOG + 4 * limits::MAIL_BATCH) as u32;
        for letter in 0..many {
            post.post(TO, letter);
        }
        assert!(post.flush(), "two batches fit, the rest waits");
        assert!(!post.has_room(TO) && post.has_room(ReactorId(0)));
        let mut got = Vec::new();
        while post.flush() {
            receive(&boxes[TO.index()], &mut got);
        }
        receive(&boxes[TO.index()], &mut got);
        assert_eq!(got, (0..many).collect::<Vec<_>>());
        assert!(post.has_room(TO));
        assert!(boxes[0].take().is_none());
    }

    #[test]
    fn what_waits_for_all_receivers_is_counted() {
        let boxes = boxes(3, 1);
        let mut post = Post::new(Arc::clone(&boxes));
        for letter in 0..(limits::POST_LETTERS + 2 * limits::MAIL_BATCH) as u32 {
            assert!(!post.is_crowded() || letter as usize >= limits::POST_LETTERS);
            post.post(ReactorId(1 + letter as u16 % 2), letter);
        }
        assert!(post.flush() && post.is_crowded(), "one batch each has left");
        for reactor in [1, 2] {
            boxes[reactor].take();
        }
        assert!(post.flush() && !post.is_crowded());
        while post.flush() {
            boxes.iter().for_each(|mailbox| drop(mailbox.take()));
        }
        assert_eq!(post.letters, 0);
    }

    #[test]
    fn mail_that_is_there_keeps_its_receiver_awake() {
        let boxes = boxes(2, 4);
        let mut post = Post::new(Arc::clone(&boxes));
        assert!(boxes[1].may_sleep());
        boxes[1].stay_awake();
        post.post(TO, 7);
        post.flush();
        assert!(!boxes[1].may_sleep());
        assert!(matches!(boxes[1].take(), Some(Batch::One(7))));
        assert!(boxes[1].may_sleep());
    }

    /// The receiver sleeps whenever it may; a wake-up that was missed leaves it asleep, and the test without an end.
    #[test]
    fn no_wake_up_is_missed() {
        use std::os::fd::AsRawFd;
        let boxes = boxes(2, 4);
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let mut post = Post::new(Arc::clone(&boxes));
                std::thread::spawn(move || {
                    for letter in 0..20_000 {
                        post.post(TO, letter);
                        while post.flush() {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mailbox = &boxes[TO.index()];
        let mut poll = mio::Poll::new().unwrap();
        let fd = mailbox.wake().as_raw_fd();
        poll.registry()
            .register(
                &mut mio::unix::SourceFd(&fd),
                mio::Token(0),
                mio::Interest::READABLE,
            )
            .unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut got = Vec::new();
        while got.len() < 40_000 {
            if mailbox.may_sleep() {
                poll.poll(&mut events, Some(std::time::Duration::from_secs(20)))
                    .unwrap();
                assert!(!events.is_empty(), "the receiver was left asleep");
            }
            mailbox.stay_awake();
            receive(mailbox, &mut got);
        }
        for sender in senders {
            sender.join().unwrap();
        }
        got.sort_unstable();
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, letter)| *letter as usize == i / 2)
        );
    }
}
