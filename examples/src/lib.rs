//! Programs that show Hodei at work; see the examples beside this file.
