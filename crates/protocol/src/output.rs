//! Bytes on their way to a socket. Small pieces are copied together; a large value is kept as it
//! is, shared with the store, and written from where it lies (vectored writes).

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Values from this size on are not copied, in bytes: below it a copy costs less than one more
/// piece of a vectored write.
const SHARED_BYTES_MIN: usize = 4096;

/// Copied bytes are closed off at this size, so that appending never moves more than this.
const TAIL_BYTES_MAX: usize = 64 << 10;

/// Bytes to be written, in order. A [`Buf`]: `chunks_vectored` gives what to write, `advance` says
/// how much was.
#[derive(Debug, Default)]
pub struct Output {
    /// None of them is empty.
    chunks: VecDeque<Bytes>,
    /// What comes after the chunks.
    tail: BytesMut,
    /// Bytes in `chunks` and `tail`.
    bytes: usize,
    /// Bytes ever appended.
    appended: u64,
}

impl Output {
    #[must_use]
    pub fn new() -> Output {
        Output::default()
    }

    /// Bytes ever appended: the place in the stream of the next one.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended
    }

    /// Bytes ever written (advanced over).
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.appended - self.bytes as u64
    }

    /// Appends a copy of these bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.tail.len() + bytes.len() > TAIL_BYTES_MAX {
            self.close_tail();
        }
        self.tail.extend_from_slice(bytes);
        self.bytes += bytes.len();
        self.appended += bytes.len() as u64;
    }

    /// Appends a number in decimal.
    pub fn append_number(&mut self, number: u64) {
        self.append(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Appends a value: a copy of a small one, of a large one the share that `share` gives.
    pub fn append_value(&mut self, value: &[u8], share: impl FnOnce() -> Bytes) {
        if value.len() < SHARED_BYTES_MIN {
            self.append(value);
            return;
        }
        self.close_tail();
        self.bytes += value.len();
        self.appended += value.len() as u64;
        self.chunks.push_back(share());
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        match self.chunks.front() {
            Some(chunk) => chunk,
            None => &self.tail,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&*self.tail);
        let chunks = self.chunks.iter().map(|chunk| &**chunk).chain(tail);
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, bytes: usize) {
        assert!(
            bytes <= self.bytes,
            "{bytes} bytes written of {}",
            self.bytes,
        );
        self.bytes -= bytes;
        let mut left = bytes;
        while let Some(chunk) = self.chunks.front_mut() {
            if left < chunk.len() {
                chunk.advance(left);
                return;
            }
            left -= chunk.len();
            self.chunks.pop_front();
        }
        self.tail.advance(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(output: &mut Output) -> Vec<u8> {
        let mut all = vec![0; output.remaining()];
        output.copy_to_slice(&mut all);
        all
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_in_whatever_their_size() {
        let mut output = Output::new();
        let mut expected = Vec::new();
        for size in [
            1,
            SHARED_BYTES_MIN,
            3,
            0,
            40_000,
            5000,
            4095,
            TAIL_BYTES_MAX,
            7,
        ] {
            let value = Bytes::from(vec![size as u8; size]);
            output.append_value(&value, || value.clone());
            output.append(&value);
            output.append_number(size as u64);
            expected.extend_from_slice(&value);
            expected.extend_from_slice(&value);
            expected.extend_from_slice(size.to_string().as_bytes());
        }
        assert_eq!(output.remaining(), expected.len());
        assert_eq!(written(&mut output), expected);
        assert_eq!(output.written_bytes(), output.appended_bytes());
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let value = Bytes::from(vec![7; SHARED_BYTES_MIN]);
        let mut output = Output::new();
        output.append(b"head");
        output.append_value(&value, || value.clone());
        output.append(b"tail");
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(output.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), value.as_ptr());
    }

    #[test]
    fn any_part_of_it_may_be_written_at_a_time() {
        let value = Bytes::from(vec![7; SHARED_BYTES_MIN]);
        for step in [1, 2, 3, 1000, SHARED_BYTES_MIN] {
            let mut output = Output::new();
            let mut seen = Vec::new();
            for _ in 0..3 {
                output.append(b"head");
                output.append_value(&value, || value.clone());
                output.append(b"tail");
                let part = step.min(output.chunk().len());
                seen.extend_from_slice(&output.chunk()[..part]);
                output.advance(part);
            }
            while output.has_remaining() {
                let part = step.min(output.chunk().len());
                seen.extend_from_slice(&output.chunk()[..part]);
                output.advance(part);
            }
            let whole = [b"head".as_slice(), &value, b"tail"].concat();
            assert_eq!(seen, whole.repeat(3), "in steps of {step}");
        }
    }
}
