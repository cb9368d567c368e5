"""Fuzzing: whatever strangers send is answered, or refused with an error of ours. ``make fuzz``: a million cases."""
