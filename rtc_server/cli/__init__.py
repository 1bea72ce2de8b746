"""The commands of ``rtc-server``."""
