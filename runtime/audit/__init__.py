"""The audit trail for others: is it whole, who vouches for its time, and how does it leave the box?"""
