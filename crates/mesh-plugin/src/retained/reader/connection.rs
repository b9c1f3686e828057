//! A connection to this broker whose thread can be ended while it waits.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Login, packets};

/// A broker that says nothing for so long does not answer any more.
const SILENCE: Duration = Duration::from_secs(10);
/// So often a thread that waits for the broker looks whether that ends.
const LOOK: Duration = Duration::from_millis(100);

/// A stream that gives up when the broker ends. From outside it cannot be closed: its descriptor is the thread's own.
struct Patient {
    stream: TcpStream,
    ending: Arc<AtomicBool>,
}

impl Patient {
    fn new(stream: TcpStream, ending: &Arc<AtomicBool>) -> Self {
        Self {
            stream,
            ending: Arc::clone(ending),
        }
    }

    /// Does `act` until it is not about waiting that it fails. Each try waits for [`LOOK`] at most.
    fn patiently<T>(&mut self, mut act: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let begin = Instant::now();
        loop {
            let result = act(&mut self.stream);
            match &result {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.ending.load(Ordering::Relaxed) {
                        return Err(io::Error::other("the broker ends"));
                    }
                    if begin.elapsed() >= SILENCE {
                        return result;
                    }
                }
                _ => return result,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that is logged in.
pub(super) struct Connection {
    writer: Patient,
    reader: BufReader<Patient>,
    next_id: u16,
}

impl Connection {
    /// Connects and logs in. What waits for the broker gives up when `ending` is set.
    pub(super) fn open(login: &Login, ending: &Arc<AtomicBool>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&login.address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let mut connection = Self {
            reader: BufReader::new(Patient::new(stream.try_clone()?, ending)),
            writer: Patient::new(stream, ending),
            next_id: 1,
        };
        connection.send(&packets::connect(login))?;
        let answer = connection.packet()?;
        packets::check_connack(&answer)?;
        Ok(connection)
    }

    /// Sends packets as they are.
    pub(super) fn send(&mut self, packets: &[u8]) -> io::Result<()> {
        self.writer.write_all(packets)
    }

    /// Asks for what is stored at these topics. All of it has come before the next PINGRESP.
    pub(super) fn ask(&mut self, topics: &[Box<str>]) -> io::Result<()> {
        let (first, second) = (self.next_id, self.next_id.wrapping_add(1));
        self.next_id = second.wrapping_add(1).max(1);
        let mut bytes = packets::subscribe(first, topics);
        bytes.extend(packets::unsubscribe(second.max(1), topics));
        bytes.extend(packets::PINGREQ);
        self.writer.write_all(&bytes)
    }

    /// Waits until the broker has handled everything that was sent.
    pub(super) fn ping(&mut self) -> io::Result<()> {
        self.writer.write_all(&packets::PINGREQ)?;
        loop {
            if self.packet()?[0] == packets::PINGRESP {
                return Ok(());
            }
        }
    }

    /// The next packet, whole.
    pub(super) fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = Vec::new();
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        packet.extend(byte);
        let mut length = 0;
        for place in 0..4 {
            self.reader.read_exact(&mut byte)?;
            packet.extend(byte);
            length |= usize::from(byte[0] & 0x7f) << (7 * place);
            if byte[0] < 0x80 {
                break;
            }
        }
        let read = self
            .reader
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut packet)?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(packet)
    }
}
