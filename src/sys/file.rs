//! Blocks of a file.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;

use super::check;

/// Gives an empty file `size` bytes of zeros with blocks of its own, so that writing into them later needs none.
pub fn allocate(file: &mut File, size: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: no memory is involved.
    match check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) }) {
        Ok(_) => Ok(()),
        // A file system that can't reserve takes zeros.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let zeros = vec![0; 1 << 16];
            file.rewind()?;
            let mut left = size;
            while left > 0 {
                let part = left.min(zeros.len() as u64) as usize;
                file.write_all(&zeros[..part])?;
                left -= part as u64;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_has_its_blocks_before_it_is_written() {
        let path = std::env::temp_dir().join(format!("stillwire-allocate-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        allocate(&mut file, 1 << 20).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(meta.len(), 1 << 20);
        assert!(meta.blocks() * 512 >= 1 << 20);
        assert!(allocate(&mut file, u64::MAX).is_err());
    }
}
