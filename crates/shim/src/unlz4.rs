//! `litegix-shim unlz4 BYTES FILE <FRAME`: decompresses LZ4's legacy frame, which Linux' build writes for
//! CONFIG_KERNEL_LZ4 (Debian's kernels), into the new FILE. Node has no LZ4. BYTES is the size that the kernel's image
//! states; a frame that gives more or less is an error. Format: lz4_Frame_format.md, "Legacy frame".

use lz4_flex::block;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The format's limit of a block's content.
const MAX_BLOCK_BYTES: usize = 8 << 20;

pub fn run(arguments: &[OsString]) -> ExitCode {
    let [bytes, path] = arguments else {
        eprintln!("usage: litegix-shim unlz4 BYTES FILE <FRAME");
        return ExitCode::from(64);
    };
    let Some(bytes) = bytes.to_str().and_then(|text| text.parse().ok()) else {
        eprintln!("litegix-shim: {} is not a number of bytes", bytes.display());
        return ExitCode::from(64);
    };
    let done = File::create_new(path)
        .and_then(|mut output| decompress(io::stdin().lock(), &mut output, bytes));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("litegix-shim: LZ4: {error}");
            ExitCode::from(65)
        }
    }
}

/// Never writes more than `bytes`, and holds one block at a time.
fn decompress(mut frame: impl Read, output: &mut impl Write, bytes: u64) -> io::Result<()> {
    let damaged = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut magic = [0; 4];
    frame.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("this is not a legacy frame".to_owned()));
    }
    let mut compressed = Vec::new();
    let mut content = vec![0; MAX_BLOCK_BYTES];
    let mut written = 0;
    while written < bytes {
        let mut length = [0; 4];
        frame.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        compressed.clear();
        if frame
            .by_ref()
            .take(length.into())
            .read_to_end(&mut compressed)?
            < length as usize
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let found = block::decompress_into(&compressed, &mut content)
            .map_err(|error| damaged(error.to_string()))?;
        written += found as u64;
        if found == 0 || written > bytes {
            return Err(damaged(format!("it does not hold {bytes} bytes")));
        }
        output.write_all(content.get(..found).unwrap_or_default())?;
    }
    if frame.read(&mut [0])? > 0 {
        return Err(damaged(format!("it holds more than {bytes} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn legacy_frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        for content in blocks {
            let block = block::compress(content);
            frame.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            frame.extend(block);
        }
        frame
    }

    fn decompressed(frame: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        decompress(frame, &mut output, bytes as u64).map(|()| output)
    }

    /// By `lz4 -l -9`, as the kernel's build calls it.
    #[test]
    fn a_frame_of_the_lz4_program_is_read() {
        let frame = b"\x02\x21\x4c\x18\x11\0\0\0\x2fab\x02\0\x0f\xa0, a kernel";
        let content = format!("{}, a kernel", "ab".repeat(18));
        assert_eq!(
            decompressed(frame, content.len()).unwrap(),
            content.as_bytes()
        );
    }

    #[test]
    fn a_frame_must_give_what_the_image_states() {
        let content = b"kernel ".repeat(1000);
        let relocations = b"and its relocations";
        let frame = legacy_frame(&[&content, relocations]);
        let whole = [&content[..], relocations].concat();
        assert_eq!(decompressed(&frame, whole.len()).unwrap(), whole);
        for (frame, bytes, reason) in [
            (&frame[..], whole.len() - 1, "it does not hold 7018 bytes"),
            (&frame[..], content.len(), "it holds more than 7000 bytes"),
            (&frame[..], whole.len() + 1, "failed to fill whole buffer"),
            (
                &frame[..frame.len() - 1],
                whole.len(),
                "unexpected end of file",
            ),
            (&frame[1..], whole.len(), "this is not a legacy frame"),
        ] {
            assert_eq!(decompressed(frame, bytes).unwrap_err().to_string(), reason);
        }
    }

    proptest! {
        #[test]
        fn blocks_come_back_one_after_the_other(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..600), 1..4),
        ) {
            let frame = legacy_frame(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let whole = blocks.concat();
            prop_assert_eq!(decompressed(&frame, whole.len()).unwrap(), whole);
        }

        #[test]
        fn any_frame_is_decompressed_or_refused(
            bytes in 0_usize..10_000,
            rest in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut output = Vec::new();
            let frame = [&MAGIC[..], &rest].concat();
            let done = decompress(frame.as_slice(), &mut output, bytes as u64);
            prop_assert!(output.len() <= bytes);
            prop_assert!(done.is_err() || output.len() == bytes);
        }

        #[test]
        fn any_block_is_decompressed_or_refused(block in prop::collection::vec(any::<u8>(), 1..600)) {
            let length = u32::try_from(block.len()).unwrap().to_le_bytes();
            let frame = [&MAGIC[..], &length, &block].concat();
            let mut output = Vec::new();
            let _ = decompress(frame.as_slice(), &mut output, 4096);
            prop_assert!(output.len() <= 4096);
        }
    }
}
