"""The KLIP release as compositions of our parts; nothing else imports from here."""
