//! What is written is what was meant, is what was written by every build before, and is told from everything else.

mod any;
mod damage;
mod figures;
mod golden;
mod roundtrip;
