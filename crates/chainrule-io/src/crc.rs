//! The checksum of zip archives: CRC-32 with the polynomial 0xedb88320, bits in reversed order.

/// tables[0][b] is the remainder of the byte b, tables[k][b] that of b with k zero bytes after it.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = rest >> 1 ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = rest;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
};

/// A checksum under way.
pub(crate) struct Crc(u32);

impl Crc {
    pub fn new() -> Self {
        Self(!0)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for eight in eights {
            let low = u64::from_le_bytes(*eight) ^ u64::from(crc);
            crc = 0;
            for k in 0..8 {
                crc ^= TABLES[7 - k][(low >> (8 * k) & 0xff) as usize];
            }
        }
        for &byte in rest {
            crc = crc >> 8 ^ TABLES[0][(crc as u8 ^ byte) as usize];
        }
        self.0 = crc;
    }

    pub fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard() {
        let mut crc = Crc::new();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xcbf4_3926);
        let text: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        let mut whole = Crc::new();
        whole.update(&text);
        for cut in 0..text.len() {
            let mut parts = Crc::new();
            parts.update(&text[..cut]);
            parts.update(&text[cut..]);
            assert_eq!(parts.value(), whole.value());
        }
    }
}
