"""The programs: preforkd, preforkctl and the zygote's entry; the composition root."""
